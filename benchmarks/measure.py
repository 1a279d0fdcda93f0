"""Measure cases on this process' backend: ``python -m benchmarks.measure CASE…`` prints a line of JSON a case."""

import argparse
import json
import time
from statistics import median
from typing import Any

import keras
import numpy as np

from benchmarks.cases import CASES, prepare
from kbl.backend import devices
from kbl.evaluation import versions

# Calls before those that count: on torch kbl records at the fifth at the latest.
WARM_UP = 5 if keras.config.backend() == "torch" else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    peak = matrix_product_rate()
    for name in arguments.cases:
        record = measure(name, arguments.batch, arguments.rounds)
        print(json.dumps({**record, "matrix_product_flops": peak}), flush=True)


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Let the contestants take turns, `rounds` times after the calls that compile or record."""
    case = CASES[name]
    work = prepare(case, batch)
    first: dict[str, float] = {}
    results: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in work.contestants}
    for round_ in range(rounds + WARM_UP):
        for contestant, run in work.contestants.items():
            started = time.perf_counter()
            results[contestant] = run()
            taken = (time.perf_counter() - started) / case.batches
            if round_ >= WARM_UP:
                seconds[contestant].append(taken)
            elif round_ == 0:
                first[contestant] = taken * case.batches
    medians = {contestant: median(taken) for contestant, taken in seconds.items()}
    peers = [name for name in medians if not name.startswith("kbl")]
    base = "by hand" if case.by_hand else min(peers, key=medians.__getitem__, default="kbl")
    return {
        "id": name,
        "case": case.name,
        "network": case.network,
        "batch": batch,
        "epsilon": work.epsilon,
        "backend": keras.config.backend(),
        "device": devices()[0],
        "versions": versions(),
        "forward_flops": work.flops,
        "medians": medians,
        "base": base,
        "ratios": {
            contestant: [one / other for one, other in zip(taken, seconds[base], strict=True)]
            for contestant, taken in seconds.items()
        },
        "seconds": seconds,
        "first_call": first,
        "results": results,
    }


def matrix_product_rate(rounds: int = 7) -> float:
    """Return the float32 operations a second of the framework's fastest product of two square matrices, at best.

    A GPU gets larger ones, beside which the time to reach it counts for little.
    """
    size = 2048 if devices()[0].lower().startswith("cpu") else 8192
    a = keras.ops.convert_to_tensor(np.random.default_rng(0).random((size, size)).astype("float32"))
    products: list[Any] = [keras.ops.matmul]
    if keras.config.backend() == "torch":  # its own is MKL's; oneDNN's is twice as fast on some processors
        from kbl.backend.wide_product import WideProduct

        if WideProduct.helps(a, a):
            products.append(lambda a, b: WideProduct.apply(a, b, None))
    times = []
    for product in products * rounds:
        started = time.perf_counter()
        keras.ops.convert_to_numpy(product(a, a)[0, 0])
        times.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(times)


if __name__ == "__main__":
    main()
