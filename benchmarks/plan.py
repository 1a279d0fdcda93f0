"""Which cases are measured, and what is made of the measured memory."""

from statistics import median
from typing import Any

CASES = [
    "fgsm",
    "pgd10",
    "pgd40",
    "cw",
    "at",
    "atblr",
    "resnet-pgd10",
    "resnet-at",
    "resnet-atblr",
    "worst",
    "autoattack",
]
QUICK = ["fgsm", "pgd10", "at", "atblr"]
MEMORY = ["pgd10", "resnet-pgd10"]
MEMORY_PROCESSES = 3
# Every tensor is taken from the system and given back to it: a heap's fragments, and the pool that TensorFlow keeps for
# oneDNN, would hide a peak, or add to it, as chance has it (the same loop by hand: 25 to 49 MiB).
MEMORY_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1"}

# Forward passes' worth of work of a case with fixed passes: a gradient in the image costs another pass, one in the
# weights a third.
PASSES = {
    "fgsm": 1 + 2 + 1,
    "pgd10": 1 + 20 + 1,
    "pgd40": 1 + 80 + 1,
    "cw": 60,
    "at": 20 + 6,
    "atblr": 20 + 6,
    "resnet-pgd10": 1 + 20 + 1,
    "resnet-at": 20 + 6,
    "resnet-atblr": 20 + 6,
}


def peaks(memory: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return of each case and contestant the peak of the first calls and of later ones: medians of the processes."""
    processes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in memory:
        processes.setdefault((one["id"], one["contestant"]), []).append(one)
    return {
        key: (median(max(one["first"]) for one in found), median(max(one["later"]) for one in found))
        for key, found in processes.items()
    }
