"""kbl's attacks beside those of torchattacks, foolbox and ART: the same networks, images and budgets.

    kbl run recipes/mnist-cpu-at.toml --backend torch --out runs/mnist-cpu-at
    KERAS_BACKEND=torch python -m studies.reference natural     # a plain network, two epochs
    KERAS_BACKEND=torch python -m studies.reference peers       # needs: pip install 'kbl[bench]'
    KERAS_BACKEND=jax python -m studies.reference kbl           # and torch, and tensorflow
    python -m studies.reference table

Each writes its rows to results/reference-<who>.json; those that are there are not computed again. The networks are
PyTorch modules for the peers (Keras' own, on the torch backend), read from the same .keras files on every backend.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results"
NATURAL = Path("runs/mnist-natural.keras")
NETWORKS = {"natural": NATURAL, "adversarial": Path("runs/mnist-cpu-at/model.keras")}
# Radii at which each network is right about half of the time or more.
RADII = {
    ("natural", "linf"): 0.08,
    ("natural", "l2"): 1.0,
    ("adversarial", "linf"): 0.3,
    ("adversarial", "l2"): 2.0,
}
IMAGES, NEAREST = 500, 100  # for robust accuracies; for minimum norms
STEPS = 40  # of PGD
PARTS = ("natural", "linf")  # where AutoAttack's first two parts are also run alone
CW = {"binary_search_steps": 5, "steps": 300, "learning_rate": 0.05, "initial_c": 1.0}
FAB_STEPS = 100


def images() -> tuple[np.ndarray, np.ndarray]:
    from kbl.data import load

    data = load("mnist")
    return data.x_test[:IMAGES], data.y_test[:IMAGES]


def load_network(name: str) -> Any:
    import keras

    import kbl.layers  # noqa: F401 - registers the head

    return keras.saving.load_model(NETWORKS[name], compile=False)


def train_natural() -> None:
    """Two epochs of plain training with mnist-cpu's network and a dense head."""
    import keras

    from kbl import networks
    from kbl.data import load

    keras.utils.set_random_seed(0)
    data = load("mnist")
    network = networks.build(
        "mnist_small_convnet",
        num_classes=10,
        image_shape=(28, 28, 1),
        seed=0,
        head="dense",
        batch_normalization=False,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss=loss, metrics=["accuracy"])
    network.fit(data.x_train, data.y_train, batch_size=128, epochs=2, verbose=2)
    NATURAL.parent.mkdir(exist_ok=True)
    network.save(NATURAL)


def l2(x_adv: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.sqrt(((x_adv.astype("float64") - x) ** 2).sum(axis=(1, 2, 3)))


Row = dict[str, Any]


def kbl_rows() -> Iterator[tuple[Row, Callable[[], float]]]:
    """Every case, described, with what measures it: robust accuracy in %, or a median distance."""
    from kbl.attacks import FAB, PGD, AutoAttack, CarliniWagner, predict

    x, y = images()
    for name in NETWORKS:
        network = load_network(name)
        right = predict(network, x).argmax(axis=1) == y

        def accuracy(attack: Any, network: Any = network, right: Any = right) -> float:
            rows = np.flatnonzero(right)
            x_adv = attack(network, x[rows], y[rows], batch_size=250)
            return 100 * float((predict(network, x_adv).argmax(axis=1) == y[rows]).sum()) / len(x)

        def median(attack: Any, network: Any = network, right: Any = right) -> float:
            rows = np.flatnonzero(right)[:NEAREST]
            found = attack.search(network, x[rows], y[rows], batch_size=NEAREST)
            return float(np.median(np.where(found.fooled, -found.score, np.inf)))

        yield {"network": name, "case": "clean"}, lambda right=right: 100 * float(right.mean())
        for norm in ("linf", "l2"):
            epsilon = RADII[name, norm]
            ball = {"network": name, "norm": norm, "epsilon": epsilon}
            pgd = PGD(epsilon, epsilon / 10, STEPS, norm=norm)
            yield {**ball, "case": f"PGD-{STEPS}"}, lambda pgd=pgd, accuracy=accuracy: accuracy(pgd)
            whole = AutoAttack(epsilon, norm)
            yield {**ball, "case": "AutoAttack"}, lambda whole=whole, accuracy=accuracy: accuracy(whole)
            if (name, norm) == PARTS:
                for part in whole.parts(10)[:2]:
                    case = "APGD-T alone" if part.targets else "APGD-CE alone"
                    yield {**ball, "case": case}, lambda part=part, accuracy=accuracy: accuracy(part)
            fab = FAB(None, FAB_STEPS, targets=9, norm=norm)
            yield (
                {"network": name, "norm": norm, "case": "FAB-T, median distance"},
                lambda fab=fab, median=median: median(fab),
            )
        cw = CarliniWagner(**CW)
        yield (
            {"network": name, "norm": "l2", "case": "C&W, median distance"},
            lambda cw=cw, median=median: median(cw),
        )


def peer_rows() -> Iterator[tuple[Row, Callable[[], float]]]:
    """The same cases by whoever of the peers has them."""
    import torch

    x, y = images()
    tx, ty = torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()
    for name in NETWORKS:
        network = load_network(name)

        class Module(torch.nn.Module):
            def __init__(self, network: Any = network) -> None:
                super().__init__()
                self.network = network

            def forward(self, z: Any) -> Any:
                return self.network(z.permute(0, 2, 3, 1), training=False)

        module = Module().eval()
        with torch.no_grad():
            right = (module(tx).argmax(1) == ty).numpy()
        yield from _torchattacks(name, module, tx, ty, right)
        yield from _foolbox(name, module, tx, ty, right)
        yield from _art(name, module, tx, ty, right)


def _score(module: Any, x_adv: Any, ty: Any) -> float:
    import torch

    with torch.no_grad():
        return 100 * float((module(torch.as_tensor(x_adv)).argmax(1) == ty).float().mean())


def _median(module: Any, x_adv: Any, tx: Any, ty: Any) -> float:
    """Median L2 distance, infinite where nothing was found."""
    import torch

    x_adv = torch.as_tensor(x_adv)
    with torch.no_grad():
        fooled = (module(x_adv).argmax(1) != ty).numpy()
    return float(np.median(np.where(fooled, l2(x_adv.detach().numpy(), tx.numpy()), np.inf)))


def _torchattacks(name: str, module: Any, tx: Any, ty: Any, right: Any) -> Iterator[Any]:
    import torchattacks

    rows = np.flatnonzero(right)[:NEAREST]
    for norm, called in (("linf", "Linf"), ("l2", "L2")):
        epsilon = RADII[name, norm]
        ball = {"network": name, "norm": norm, "epsilon": epsilon, "by": "torchattacks"}
        if norm == "linf":
            pgd = torchattacks.PGD(module, eps=epsilon, alpha=epsilon / 10, steps=STEPS)
        else:
            pgd = torchattacks.PGDL2(module, eps=epsilon, alpha=epsilon / 10, steps=STEPS)
        yield {**ball, "case": f"PGD-{STEPS}"}, lambda pgd=pgd: _score(module, pgd(tx, ty), ty)
        whole = torchattacks.AutoAttack(
            module, norm=called, eps=epsilon, version="standard", n_classes=10, seed=0
        )
        yield {**ball, "case": "AutoAttack"}, lambda whole=whole: _score(module, whole(tx, ty), ty)
        if (name, norm) == PARTS:
            for case, make in (("APGD-CE alone", torchattacks.APGD), ("APGD-T alone", torchattacks.APGDT)):
                part = make(module, norm=called, eps=epsilon, steps=100, seed=0)
                yield {**ball, "case": case}, lambda part=part: _score(module, part(tx, ty), ty)
        fab = torchattacks.FAB(
            module, norm=called, eps=1e3, steps=FAB_STEPS, multi_targeted=True, n_classes=10
        )

        def nearest(fab: Any = fab, norm: str = norm) -> float:
            found = fab(tx[rows], ty[rows])
            offset = (found - tx[rows]).detach().numpy().reshape(len(rows), -1)
            far = np.abs(offset).max(axis=1) if norm == "linf" else np.sqrt((offset**2).sum(axis=1))
            return float(np.median(np.where(far > 0, far, np.inf)))

        described = {"network": name, "norm": norm, "by": "torchattacks", "case": "FAB-T, median distance"}
        yield described, nearest


def _foolbox(name: str, module: Any, tx: Any, ty: Any, right: Any) -> Iterator[Any]:
    import foolbox

    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attacks = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}
    for norm, make in attacks.items():
        epsilon = RADII[name, norm]

        def pgd(make: Any = make, epsilon: float = epsilon) -> float:
            attack = make(abs_stepsize=epsilon / 10, steps=STEPS, random_start=True)
            return _score(module, attack(model, tx, ty, epsilons=epsilon)[1], ty)

        ball = {"network": name, "norm": norm, "epsilon": epsilon, "by": "foolbox"}
        yield {**ball, "case": f"PGD-{STEPS}"}, pgd
    rows = np.flatnonzero(right)[:NEAREST]

    def cw() -> float:
        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=CW["binary_search_steps"],
            steps=CW["steps"],
            stepsize=CW["learning_rate"],
            initial_const=CW["initial_c"],
        )
        found = attack(model, tx[rows], ty[rows], epsilons=None)[1]
        return _median(module, found, tx[rows], ty[rows])

    yield {"network": name, "norm": "l2", "by": "foolbox", "case": "C&W, median distance"}, cw


def _art(name: str, module: Any, tx: Any, ty: Any, right: Any) -> Iterator[Any]:
    import torch
    from art.attacks.evasion import CarliniL2Method, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        module, torch.nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )
    for norm, called in (("linf", np.inf), ("l2", 2)):
        epsilon = RADII[name, norm]

        def pgd(epsilon: float = epsilon, called: Any = called) -> float:
            attack = ProjectedGradientDescent(
                model,
                called,
                epsilon,
                epsilon / 10,
                max_iter=STEPS,
                num_random_init=1,
                batch_size=250,
                verbose=False,
            )
            return _score(module, attack.generate(tx.numpy(), ty.numpy()), ty)

        yield {"network": name, "norm": norm, "epsilon": epsilon, "by": "ART", "case": f"PGD-{STEPS}"}, pgd
    rows = np.flatnonzero(right)[:NEAREST]

    def cw() -> float:
        attack = CarliniL2Method(
            model,
            binary_search_steps=CW["binary_search_steps"],
            max_iter=CW["steps"],
            learning_rate=CW["learning_rate"],
            initial_const=CW["initial_c"],
            batch_size=NEAREST,
            verbose=False,
        )
        return _median(module, attack.generate(tx[rows].numpy(), ty[rows].numpy()), tx[rows], ty[rows])

    yield {"network": name, "norm": "l2", "by": "ART", "case": "C&W, median distance"}, cw


def measure(who: str, rows: Iterator[tuple[Row, Callable[[], float]]]) -> None:
    path = RESULTS / f"reference-{who}.json"
    done = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    for row, find in rows:
        if any({key: old[key] for key in row if key in old} == row for old in done):
            continue
        started = time.perf_counter()
        value = find()
        done.append({**row, "value": value, "seconds": round(time.perf_counter() - started, 1)})
        print(done[-1], flush=True)
        path.write_text(
            json.dumps({"versions": _versions(), "rows": done}, indent=1) + "\n", encoding="utf-8"
        )


def _versions() -> dict[str, str]:
    from importlib import metadata

    from kbl.evaluation import versions

    found = versions()
    for peer in ("torchattacks", "foolbox", "adversarial-robustness-toolbox"):
        try:
            found[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            continue
    return found


def table() -> str:
    """Return the Markdown table of docs/reference.md."""
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for who in ("torch", "jax", "tensorflow", "peers"):
        path = RESULTS / f"reference-{who}.json"
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []:
            epsilon = f"{row['epsilon']:g}" if "epsilon" in row else ""
            norm = {"linf": "L∞", "l2": "L2"}.get(row.get("norm", ""), "")
            key = (row["network"], norm, epsilon, row["case"])
            rows.setdefault(key, {})[row.get("by", f"kbl {who}")] = row["value"]
    columns = ("kbl torch", "kbl jax", "kbl tensorflow", "torchattacks", "foolbox", "ART")
    lines = [
        "| network | norm | ε | attack | " + " | ".join(columns) + " |",
        "| --- | --- | --- | --- |" + " --- |" * len(columns),
    ]
    for key, found in rows.items():
        digits = 3 if "distance" in key[3] else 1
        cells = [f"{found[column]:.{digits}f}" if column in found else "" for column in columns]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["natural"]:
            train_natural()
        case ["peers"]:
            measure("peers", peer_rows())
        case ["kbl"]:
            import keras

            measure(keras.config.backend(), kbl_rows())
        case ["table"]:
            print(table())
        case _:
            print(__doc__)
