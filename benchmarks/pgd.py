"""PGD of kbl beside the same loop by hand, on the backend of this process; prints one line of JSON."""

import argparse
import importlib
import json
import time
from statistics import median
from typing import Any

import keras
import numpy as np

from kbl import attacks, data, networks
from kbl.backend import devices
from kbl.evaluation import versions

EPSILON, STEP_SIZE, BATCH = 0.3, 0.01, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    network = networks.build(
        "mnist_convnet",
        head="dense",
        num_classes=10,
        image_shape=(28, 28, 1),
        batch_normalization=False,
        seed=0,
    )
    x = data.load("mnist").x_test[:BATCH]
    y = attacks.predict(network, x).argmax(axis=1).astype("int32")  # all right, so all are attacked
    by_hand = importlib.import_module(f"benchmarks.handwritten.{keras.config.backend()}")
    weights = [variable.numpy() for variable in network.weights]
    floor = by_hand.make(weights, EPSILON, STEP_SIZE, arguments.steps)
    # Fixed work: no image leaves and the loop does not stop before its last step.
    attack = attacks.PGD(EPSILON, STEP_SIZE, arguments.steps, early_stop=False)
    contestants: dict[str, Any] = {
        "by hand": floor,
        "kbl": lambda x, y: attack(network, x, y, batch_size=BATCH),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    first: dict[str, float] = {}
    for round_ in range(arguments.rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            x_adv = run(x, y)
            taken = time.perf_counter() - started
            assert np.abs(x_adv - x).max() <= EPSILON + 1e-6
            if round_:
                seconds[name].append(taken)
            else:
                first[name] = taken
    medians = {name: median(taken) for name, taken in seconds.items()}
    print(
        json.dumps(
            {
                "case": f"PGD-{arguments.steps}, MNIST convnet, batch {BATCH}",
                "backend": keras.config.backend(),
                "device": devices()[0],
                "versions": versions(),
                "ratio": medians["kbl"] / medians["by hand"],
                "ratio_of_each_round": [
                    k / f for k, f in zip(seconds["kbl"], seconds["by hand"], strict=True)
                ],
                "seconds": seconds,
                "first_call": first,
            }
        )
    )


if __name__ == "__main__":
    main()
