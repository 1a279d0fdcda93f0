"""Run the benchmarks on every backend installed: ``python -m benchmarks [--quick]``; JSON goes to results/."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from kbl.backend_choice import installed

RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few steps and rounds: a look, not a measurement"
    )
    quick = parser.parse_args().quick
    options = ["--steps", "5", "--rounds", "2"] if quick else []
    table = Table("case", "backend", "by hand, s", "kbl, s", "ratio of medians", "ratios", "first call, s")
    records, failed = [], False
    for backend in installed():
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "benchmarks.pgd", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            failed = True
            sys.stderr.write(done.stderr)
            continue
        record = json.loads(done.stdout.splitlines()[-1])
        records.append(record)
        ratios = record["ratio_of_each_round"]
        table.add_row(
            record["case"],
            backend,
            *(f"{median(record['seconds'][name]):.3f}" for name in ("by hand", "kbl")),
            f"{record['ratio']:.3f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{record['first_call']['kbl']:.2f}",
        )
    Console().print(table)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / "benchmark-pgd.json"
        path.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
