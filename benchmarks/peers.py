"""The peers, where they are installed (the extra `bench`): each attacks the hand-written module, as its users would."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

RESTARTS = 20


def contestants(case: Any, floor: Any, x: Any, y: Any, epsilon: float) -> dict[str, Callable[[], float]]:
    """Return what each peer runs; it returns the share of images that are right before and after."""
    if case.kind not in ("pgd", "worst", "autoattack"):
        return {}
    module = floor.eval()
    images, labels = floor.images(x), floor.labels(y)
    step_size = epsilon / 10

    def share(*tries: torch.Tensor) -> float:
        with torch.no_grad():
            right = module(images).argmax(1) == labels
            for x_adv in tries:
                right &= module(x_adv).argmax(1) == labels
        return float(right.float().mean())

    restarts = RESTARTS if case.kind == "worst" else 1
    made = {}
    for name, make in (
        ("torchattacks", _torchattacks),
        ("torchattacks, 100 steps", _torchattacks_at_length),
        ("foolbox", _foolbox),
        ("ART", _art),
        ("cleverhans", _cleverhans),
    ):
        if importlib.util.find_spec({"ART": "art"}.get(name, name.split(",")[0])) is None:
            continue
        attack = make(module, case, images, labels, epsilon, step_size, restarts)
        if attack is not None:
            made[name] = lambda attack=attack: share(*attack())
    return made


def _torchattacks(
    module: Any, case: Any, images: Any, labels: Any, epsilon: float, step_size: float, restarts: int
) -> Any:
    import torchattacks

    if case.kind == "autoattack":
        whole = torchattacks.AutoAttack(module, eps=epsilon, n_classes=10, seed=0)
        return lambda: [whole(images, labels)]
    if case.steps == 1:
        attack = torchattacks.FGSM(module, eps=epsilon)
    else:
        attack = torchattacks.PGD(module, eps=epsilon, alpha=step_size, steps=case.steps, random_start=True)
    return lambda: (attack(images, labels) for _ in range(restarts))


def _torchattacks_at_length(
    module: Any, case: Any, images: Any, labels: Any, epsilon: float, step_size: float, restarts: int
) -> Any:
    """Make its AutoAttack of the paper's 100 steps; by itself the library takes 10 in all parts but Square."""
    import torchattacks

    if case.kind != "autoattack":
        return None
    of_all = {"eps": epsilon, "seed": 0, "n_restarts": 1}
    whole = torchattacks.MultiAttack(
        [
            torchattacks.APGD(module, loss="ce", steps=100, **of_all),
            torchattacks.APGDT(module, n_classes=10, steps=100, **of_all),
            torchattacks.FAB(module, multi_targeted=True, n_classes=10, steps=100, **of_all),
            torchattacks.Square(module, n_queries=5000, **of_all),
        ]
    )
    return lambda: [whole(images, labels)]


def _foolbox(
    module: Any, case: Any, images: Any, labels: Any, epsilon: float, step_size: float, restarts: int
) -> Any:
    import foolbox

    if case.kind == "autoattack":
        return None
    model = foolbox.PyTorchModel(module, bounds=(0, 1))
    if case.steps == 1:
        attack = foolbox.attacks.LinfFastGradientAttack()
    else:
        attack = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=case.steps, random_start=True)
    attack = attack.repeat(restarts) if restarts > 1 else attack
    return lambda: [attack(model, images, labels, epsilons=epsilon)[1]]


def _art(
    module: Any, case: Any, images: Any, labels: Any, epsilon: float, step_size: float, restarts: int
) -> Any:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    if case.kind == "autoattack":
        return None
    shape = tuple(images.shape[1:])
    classifier = PyTorchClassifier(
        module,
        torch.nn.CrossEntropyLoss(),
        shape,
        10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if images.is_cuda else "cpu",
    )
    if case.steps == 1:
        attack = FastGradientMethod(classifier, eps=epsilon, batch_size=len(images))
    else:
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            eps=epsilon,
            eps_step=step_size,
            max_iter=case.steps,
            num_random_init=restarts,
            batch_size=len(images),
            verbose=False,
        )
    x, y = np.ascontiguousarray(images.cpu().numpy()), labels.cpu().numpy()
    return lambda: [torch.from_numpy(attack.generate(x, y)).to(images.device)]


def _cleverhans(
    module: Any, case: Any, images: Any, labels: Any, epsilon: float, step_size: float, restarts: int
) -> Any:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    if case.kind == "autoattack":
        return None
    if case.steps == 1:
        return lambda: [fast_gradient_method(module, images, epsilon, np.inf, 0.0, 1.0, labels)]
    return lambda: (
        projected_gradient_descent(
            module, images, epsilon, step_size, case.steps, np.inf, 0.0, 1.0, labels, sanity_checks=False
        )
        for _ in range(restarts)
    )
