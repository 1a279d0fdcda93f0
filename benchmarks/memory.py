"""Peak memory of one contestant: ``python -m benchmarks.memory CASE "by hand"|kbl``, or of the head: ``head CLASSES``.

Prints JSON: the bytes by which resident memory rose above what lay there before, at the most (Linux). What it measures
is tensors only where they come straight from the system, see `MEMORY_ENVIRONMENT` of `benchmarks.plan`.
"""

import ctypes
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, FEATURES = 128, 64


def status(field: str) -> int:
    """Return a field of this process' status, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024


def rise(run: Callable[[], Any]) -> int:
    """Return by how much a call raises resident memory at the most."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed lies in the heap still, and would hide the next peak
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def main() -> None:
    what, which = sys.argv[1:]
    if what == "head":
        print(json.dumps({"classes": int(which), "bytes": head(int(which))}))
        return
    from benchmarks.cases import CASES, prepare
    from benchmarks.measure import WARM_UP

    run = prepare(CASES[what], BATCH, which).contestants[which]
    first, later = ([rise(run) for _ in range(calls)] for calls in (WARM_UP, 3))
    print(json.dumps({"id": what, "contestant": which, "first": first, "later": later}))


def head(classes: int) -> int:
    """Return the peak of the head's logits and their gradient with respect to the features."""
    import numpy as np

    from kbl import backend
    from kbl.layers import GMMHead

    head = GMMHead(classes)
    features = np.random.default_rng(0).random((BATCH, FEATURES)).astype("float32")
    head(features[:1])
    import keras

    features = keras.ops.convert_to_tensor(features)
    return rise(lambda: backend.value_and_grad(lambda h: (keras.ops.sum(head(h)[:, 0]), ()), features))


if __name__ == "__main__":
    main()
