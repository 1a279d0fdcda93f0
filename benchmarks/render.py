"""The tables of docs/performance.md, from results/benchmark-*.json: ``python -m benchmarks.render [FOLDER]``."""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.plan import PASSES, peaks

RESULTS = Path(__file__).parent.parent / "results"
BACKENDS = ("torch", "jax", "tensorflow")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    paths = {name: folder / f"benchmark-{name}.json" for name in BACKENDS}
    found = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}
    head = (
        "network",
        "case",
        "backend",
        "by hand, s",
        "kbl, s",
        "kbl / by hand",
        "rounds",
        "kbl / torch by hand",
    )
    head += ("first call, s", "images/s", "share of peak")
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    fixed = [record for name in found for record in found[name]["cases"] if record["id"] in PASSES]
    floor = {one["id"]: one["medians"]["by hand"] for one in fixed if one["backend"] == "torch"}
    for record in sorted(fixed, key=lambda record: list(PASSES).index(record["id"])):
        print(row(record, floor.get(record["id"])))
    print(
        "\n| network | case | who | s | ratio to kbl | right after, % |\n| --- | --- | --- | --- | --- | --- |"
    )
    for record in found.get("torch", {"cases": []})["cases"]:
        kbl = record["seconds"]["kbl"]
        if len(record["medians"]) > 2:
            for name, seconds in record["medians"].items():
                result = f"{100 * record['results'][name]:.1f}" if record["id"] not in PASSES else ""
                ratio = median(one / other for one, other in zip(record["seconds"][name], kbl, strict=True))
                numbers = f"{seconds:.2f} | {ratio:.2f} | {result}"
                print(f"| {record['network']} | {record['case']} | {name} | {numbers} |")
    print("\n| case | backend | by hand, MiB | kbl, MiB | ratio | first calls by hand | kbl | ratio |")
    print("| --- " * 8 + "|")
    for name in found:
        memory = peaks(found[name]["memory"])
        for case in dict.fromkeys(case for case, _ in memory):
            (hand_first, hand), (first, later) = memory[case, "by hand"], memory[case, "kbl"]
            print(
                f"| {case} | {name} | {hand / 2**20:.0f} | {later / 2**20:.0f} | {later / hand:.2f} | "
                f"{hand_first / 2**20:.0f} | {first / 2**20:.0f} | {first / hand_first:.2f} |"
            )


def row(record: dict[str, Any], floor: float | None) -> str:
    medians, ratios = record["medians"], record["ratios"]["kbl"]
    share = PASSES[record["id"]] * record["forward_flops"] / medians["kbl"] / record["matrix_product_flops"]
    beside = f"{medians['kbl'] / floor:.2f}" if floor else ""
    return (
        f"| {record['network']} | {record['case']} | {record['backend']} | {medians['by hand']:.3f} | "
        f"{medians['kbl']:.3f} | **{median(ratios):.2f}** | {min(ratios):.2f} to {max(ratios):.2f} | "
        f"{beside} | "
        f"{record['first_call']['kbl']:.1f} | {record['batch'] / medians['kbl']:.0f} | {share:.0%} |"
    )


if __name__ == "__main__":
    main()
