"""When does Eq. 8 of the ATBLR paper diverge, and which form of it trains well?

    KERAS_BACKEND=torch python -m studies.divergence digits
    KERAS_BACKEND=torch python -m studies.divergence mnist
    python -m studies.divergence --table

Trains the recipe `digits` (or a reduced `mnist-cpu`) in every form of the adversarial likelihood term, with and without
batch normalization, over λ and three seeds, and attacks each network with restarts on cross-entropy and on the margin.
One line of JSON a run goes to results/divergence-DATA.jsonl; runs found there are not repeated.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results"
SEEDS = (0, 1, 2)
FORMS = {
    "exact": [],
    "features": ["method.gradient_through=features"],
    "means": ["method.gradient_through=means"],
    "bound 16": ["method.bound=16"],
    "bound 64": ["method.bound=64"],
    "clean term only": ["method.bound=1e-9"],  # a bound that no adversarial image is within: no gradient
}
NORMS = {
    "none": ["network.batch_normalization=false"],
    "joint": ["network.batch_normalization=true", "method.batch_norm=joint"],
    "separate": ["network.batch_normalization=true", "method.batch_norm=separate"],
}
# data -> (recipe, overrides, samples, grid of (batch norm, λ, form))
GRIDS: dict[str, Any] = {
    "digits": (
        "recipes/digits.toml",
        ["training.epochs=20", "training.batch_size=128", "training.epsilon_warmup_epochs=3"],
        [
            ("none", 0.001, "exact"),
            *itertools.product(["none"], [0.02, 0.1], FORMS),
            *itertools.product(["joint", "separate"], [0.02, 0.1], ["exact", "means"]),
            *itertools.product(["joint"], [0.02], ["bound 16"]),
        ],
    ),
    "mnist": (
        "recipes/mnist-cpu.toml",
        ["training.epochs=4", "data.limit=10000", "training.validation_split=0"],
        [
            *itertools.product(["none"], [0.02], FORMS),
            *itertools.product(["none"], [0.1], ["exact", "means"]),
            *itertools.product(["joint", "separate"], [0.02], ["exact", "means"]),
        ],
    ),
}
EVALUATION = {"digits": (360, 20), "mnist": (500, 40)}  # test images, attack steps


def configurations(data: str) -> Iterator[tuple[str, float, str, int]]:
    """Yield (batch norm, λ, form, seed), the forms' common λ = 0 first."""
    grid = GRIDS[data][2]
    for seed in SEEDS:
        for norm in dict.fromkeys(norm for norm, _, _ in grid):
            yield norm, 0.0, "exact", seed
        for norm, weight, form in grid:
            yield norm, weight, form, seed


def run_one(data: str, norm: str, weight: float, form: str, seed: int) -> dict[str, Any]:
    """Train and attack one configuration."""
    from kbl import DivergenceError, fitting, recipe
    from kbl.attacks import PGD
    from kbl.data import load
    from kbl.evaluation import evaluate

    path, overrides, _ = GRIDS[data]
    overrides = [
        *overrides,
        "method.gradient_through=features and means",
        *FORMS[form],
        *NORMS[norm],
        f"method.likelihood_weight={weight}",
        f"training.seed={seed}",
    ]
    described = recipe.load(path, overrides)
    dataset = load(described.data.name, described.data.limit)
    record: dict[str, Any] = {
        "batch_norm": norm,
        "lambda": weight,
        "form": form,
        "seed": seed,
        "diverged": None,
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = fitting.train(described, dataset, Path(folder), quiet=True)
        except DivergenceError as error:
            return record | {"diverged": str(error).split(": ")[0], "seconds": time.perf_counter() - started}
        rows = (Path(folder) / "history.csv").read_text(encoding="utf-8").splitlines()
    last = dict(zip(rows[0].split(","), map(float, rows[-1].split(",")), strict=True))
    samples, steps = EVALUATION[data]
    trained = described.method.attack
    attack = PGD(trained.epsilon, 2.5 * trained.epsilon / steps, steps, restarts=3)
    margin = PGD(trained.epsilon, 2.5 * trained.epsilon / steps, steps, restarts=3, loss="margin")
    result = evaluate(model.network, dataset.x_test[:samples], dataset.y_test[:samples], [attack, margin])
    return record | {
        "clean": result.clean,
        "cross_entropy": result.attacks[0].accuracy,
        "margin": result.attacks[1].accuracy,
        "robust": result.robust,
        "clean_lkd": last["clean_lkd"],
        "adversarial_lkd": last["adversarial_lkd"],
        "seconds": time.perf_counter() - started,
    }


def table(data: str) -> str:
    """Return the Markdown table of what was measured: means over seeds, ± the sample standard deviation."""
    records = _read(data)
    groups: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for record in records:
        form = "λ = 0" if record["lambda"] == 0 else record["form"]
        groups.setdefault((record["batch_norm"], record["lambda"], form), []).append(record)
    lines = [
        "| batch norm | λ | form | diverged | clean % | PGD % | PGD, margin % | worst case % | L_lkd clean / adv. |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (norm, weight, form), runs in groups.items():
        done = [run for run in runs if not run["diverged"]]
        cells = [norm, f"{weight:g}", form, f"{len(runs) - len(done)} of {len(runs)}"]
        cells += [
            _spread([100 * run[key] for run in done])
            for key in ("clean", "cross_entropy", "margin", "robust")
        ]
        lkd = (
            [statistics.mean(run[key] for run in done) for key in ("clean_lkd", "adversarial_lkd")]
            if done
            else []
        )
        cells.append(" / ".join(f"{value:.3g}" for value in lkd) or "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.mean(values):.1f}" + (
        f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    )


def _read(data: str) -> list[dict[str, Any]]:
    path = RESULTS / f"divergence-{data}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", choices=[*GRIDS], help="which grid to run")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, help="only these")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there")
    arguments = parser.parse_args()
    if arguments.data:
        data = arguments.data
        done = {
            tuple(record[key] for key in ("batch_norm", "lambda", "form", "seed")) for record in _read(data)
        }
        for configuration in configurations(data):
            if configuration in done or configuration[-1] not in arguments.seeds:
                continue
            record = run_one(data, *configuration)
            print(json.dumps(record), flush=True)
            with (RESULTS / f"divergence-{data}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    if arguments.table:
        for data in GRIDS:
            print(f"\n{data}\n\n{table(data)}")


if __name__ == "__main__":
    main()
