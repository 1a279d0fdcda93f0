"""Measure kbl beside hand-written loops and its peers on every backend installed: ``python -m benchmarks [--quick]``.

Contestants take turns in one process a backend; the table shows medians, and the ratio to the loop by hand (else to the
fastest peer) with the range over the rounds. JSON goes to results/benchmark-BACKEND.json, case by case.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.plan import CASES, MEMORY, MEMORY_ENVIRONMENT, MEMORY_PROCESSES, PASSES, QUICK, peaks
from kbl.backend_choice import installed

RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few cases, images and rounds: a look, no measurement"
    )
    parser.add_argument("--backend", action="append", help="only this one")
    parser.add_argument("--case", action="append", help="only this one; JSON is then not written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true", help="leave out peaks of resident memory")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cases = arguments.case or (QUICK if arguments.quick else CASES)
    rounds, batch = (1, 16) if arguments.quick else (arguments.rounds, 128)
    console, failed = Console(width=None if sys.stdout.isatty() else 150), False
    for backend in arguments.backend or installed():
        chosen = [case for case in cases if backend == "torch" or case in CASES[:-2]]
        options = ["--rounds", str(rounds), "--batch", str(batch)]
        runs: list[Any] = [("cases", "benchmarks.measure", [*chosen, *options], {})]
        if not (arguments.case or arguments.quick or arguments.no_memory):
            runs += [
                ("memory", "benchmarks.memory", [case, contestant], MEMORY_ENVIRONMENT)
                for case in MEMORY * MEMORY_PROCESSES
                for contestant in ("by hand", "kbl")
            ]
        found: dict[str, list[dict[str, Any]]] = {"cases": [], "memory": []}
        for kind, module, words, settings in runs:
            try:
                for record in run(backend, module, *words, **settings):
                    found[kind].append(record)
                    if not arguments.quick and not arguments.case:
                        write(arguments.out / f"benchmark-{backend}.json", found)
            except subprocess.CalledProcessError as error:
                sys.stderr.write(error.stderr)
                failed = True
            except KeyboardInterrupt:
                console.print(table(backend, found["cases"], found["memory"]))
                sys.stderr.write("stopped\n")
                return 130
        console.print(table(backend, found["cases"], found["memory"]))
    return int(failed)


def run(backend: str, module: str, *words: str, **settings: str) -> Iterator[dict[str, Any]]:
    """Yield what a module prints as JSON, line by line; `settings` are environment variables.

    Raises:
        CalledProcessError: it failed in the end.
    """
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"} | settings
    command = [sys.executable, "-W", "ignore", "-m", module, *words]
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            for line in child.stdout or ():
                if line.startswith("{"):
                    yield json.loads(line)
            status = child.wait()
        finally:
            child.kill()  # where this process was interrupted
        if status:
            errors.seek(0)
            raise subprocess.CalledProcessError(status, command, stderr=errors.read())


def write(path: Path, found: dict[str, Any]) -> None:
    """Write what is measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def table(backend: str, records: list[dict[str, Any]], memory: list[dict[str, Any]]) -> Table:
    """Return a backend's table."""
    made = Table(
        "network",
        "case",
        "contestant",
        "s",
        "ratio",
        "of each round",
        "first call, s",
        "images/s",
        "share of peak",
        "result",
    )
    made.title = backend
    for record in records:
        for contestant, seconds in record["medians"].items():
            ratios = record["ratios"][contestant]
            passes = PASSES.get(record["id"])
            share = passes and passes * record["forward_flops"] / seconds / record["matrix_product_flops"]
            made.add_row(
                record["network"],
                record["case"],
                contestant,
                f"{seconds:.3f}",
                f"{median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{record['first_call'][contestant]:.2f}",
                f"{record['batch'] / seconds:.0f}",
                f"{share:.0%}" if share else "",
                f"{record['results'][contestant]:.3f}",
            )
        made.add_section()
    for (case, contestant), (_, later) in peaks(memory).items():
        made.add_row("", f"memory, {case}", contestant, f"{later / 2**20:.0f} MiB")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
