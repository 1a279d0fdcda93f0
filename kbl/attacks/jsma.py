"""JSMA: a few pixels changed a lot, chosen by the forward derivative."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kbl import backend
from kbl.attacks.attack import Attack, Passes
from kbl.attacks.objective import is_hit, objective, other_class
from kbl.attacks.state import Forward, State, keep
from kbl.losses.labels import pick
from kbl.typing import Tensor


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class JSMA(Attack):
    """Jacobian-based saliency map attack (Papernot et al., arXiv:1511.07528), in L0: few features, changed by much.

    Each step adds θ to the pair of features that maximises ``-(α_p + α_q)(β_p + β_q)`` among the pairs with
    ``α_p + α_q > 0`` and ``β_p + β_q < 0`` (for θ < 0: the reverse), where ``α = ∂z_t/∂x`` and
    ``β = ∂(Σ_{k≠t} z_k)/∂x`` for the target t. A feature is one channel of one pixel; at its bound it leaves the
    search. An image is done when it is fooled, or when no admissible pair is left.

    z are the logits, as in the paper: of the softmax's outputs, which sum to 1, β would be -α, and both vanish where
    the network is certain. Unlike a softmax, the rule sees what all logits have in common, such as the -½‖h‖² of a
    Gaussian head: if that outweighs the classes' differences, few pairs are admissible, and the attack is weak.

    Cost: two forward and two backward passes a step, and the search for the pair, which is exact: F rounds of
    (batch, D) work for D features, where F ≤ D is the number of features that no other one beats in both α and β
    (of independent ones, about log D).

    Args:
        theta: change θ of a feature, in [-1, 1] but not 0; features are clipped to [0, 1].
        gamma: greatest share Υ of an image's features that may be changed, in (0, 1].
        steps: the most pairs changed, should `gamma` allow more, or |θ| < 1 change a pair several times; ≥ 1.
        targeted: the labels given are targets; else the target is the likeliest other class of the clean image, and
            any mistake counts as fooled.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range.

    Differs from the paper: Υ bounds the number of features changed, not of steps (for |θ| = 1 these are the same),
    and there is an untargeted form.
    """

    theta: float = 1.0
    gamma: float = 0.1
    steps: int = 1000
    targeted: bool = False
    name: str = "jsma"

    def __post_init__(self) -> None:
        self._require(("steps", 1))
        if not 0 < abs(self.theta) <= 1:
            raise ValueError(f"theta must be in [-1, 1] and not 0. Received: theta={self.theta}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1]. Received: gamma={self.gamma}")

    def begin(self, forward: Forward, state: State) -> State:
        """Choose the target."""
        x, y = state["x"], state["y"]
        return {
            "x_adv": x,
            "target": y if self.targeted else other_class(y, forward(x), ops.zeros((), "int32")),
        }

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Judge the image, and change one more pair."""
        x_adv = state["x_adv"]

        def target_logit(z: Tensor) -> tuple[Tensor, Any]:
            logits = ops.cast(forward(z), "float32")
            return ops.sum(pick(logits, state["target"])), logits

        logits, alpha = backend.value_and_grad(target_logit, x_adv)
        _, total = backend.value_and_grad(lambda z: (ops.sum(ops.cast(forward(z), "float32")), ()), x_adv)
        judged = self._judge(state, logits)
        moved = ops.clip(x_adv + self.theta, 0.0, 1.0)
        changed = _flat(x_adv != state["x"])
        count = ops.sum(ops.cast(changed, "int32"), axis=1, keepdims=True)
        domain = _flat(moved != x_adv) & (changed | (count + 2 <= self.most))  # type: ignore[attr-defined]
        sign = ops.sign(ops.cast(self.theta, "float32"))
        pair, found = best_pair(_flat(sign * alpha), _flat(sign * (alpha - total)), domain)
        x_adv = ops.where(ops.reshape(pair, (-1, *x_adv.shape[1:])), moved, x_adv)
        return {**judged, "done": judged["done"] | ~found, "x_adv": x_adv}

    def finish(self, forward: Forward, state: State) -> State:
        """Judge the last image."""
        return self._judge(state, forward(state["x_adv"]))

    def _judge(self, state: State, logits: Tensor) -> State:
        score = objective("cross_entropy", state["y"], logits, targeted=self.targeted)
        return keep(state, state["x_adv"], score, is_hit(state["y"], logits, self.targeted))

    def numbers(self, shape: tuple[int, ...]) -> dict[str, float]:
        """Add the number of features that may be changed."""
        return {**super().numbers(shape), "most": math.floor(self.gamma * math.prod(shape) + 1e-6)}

    @property
    def begins_at_image(self) -> bool:
        """The first image judged is the clean one."""
        return True

    def passes(self, classes: int) -> tuple[Passes, Passes, Passes]:
        """For the target; for both gradients; to judge the last image."""
        return Passes(0 if self.targeted else 1, 0), Passes(2, 2), Passes(1, 0)

    @property
    def label(self) -> str:
        """For example "JSMA, θ = 1, Υ = 0.1"."""
        return f"JSMA, θ = {self.theta:g}, Υ = {self.gamma:g}" + (", targeted" if self.targeted else "")


def best_pair(a: Tensor, b: Tensor, domain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pair of features that maximises ``(a_p + a_q)(b_p + b_q)`` with both factors positive.

    A best pair exists one of whose members is on the front: no other feature is above it in both a and b, for it
    could take its place, unless it is the other member. So the first member runs over the front, the second over all.

    Args:
        a: (batch, D) float32; only its ratios within an image matter.
        b: (batch, D) float32, likewise.
        domain: (batch, D) bool, the features that may be chosen.

    Returns:
        (batch, D) bool, true at the two features, and (batch,) bool, whether there is an admissible pair at all; where
        there is none, the first is false everywhere.
    """
    a, b = (ops.where(domain, _scaled(values), -float("inf")) for values in (a, b))
    features = ops.expand_dims(ops.arange(a.shape[1], dtype="int32"), 0)
    front, longest = _front(a, b)

    def pair_with(k: Tensor, best: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p = ops.expand_dims(ops.take(front, k, axis=1), 1)
        first, second = (values + ops.take_along_axis(values, p, axis=1) for values in (a, b))
        admissible = (first > 0) & (second > 0) & (features != p)
        value = ops.where(admissible, first * second, -1.0)
        q = ops.cast(ops.argmax(value, axis=1, keepdims=True), "int32")
        found = (ops.max(value, axis=1, keepdims=True), p, q)
        return tuple(ops.where(found[0] > best[0], new, old) for new, old in zip(found, best, strict=True))

    none = ops.zeros_like(front[:, :1])
    _, (value, p, q) = ops.while_loop(
        lambda k, best: k < longest,
        lambda k, best: (k + 1, pair_with(k, best)),
        (ops.zeros((), dtype="int32"), (ops.cast(none, "float32") - 1.0, none, none)),
    )
    found = value >= 0
    return found & ((features == p) | (features == q)), found[:, 0]


def _front(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return (batch, D) features with those on the front first, and the greatest number of these in an image."""
    order = ops.argsort(-a, axis=1)
    falling = ops.take_along_axis(b, order, axis=1)
    highest = ops.associative_scan(ops.maximum, falling, axis=1)
    before = ops.concatenate([ops.full_like(b[:, :1], -float("inf")), highest[:, :-1]], axis=1)
    member = ops.cast(falling > before, "int32")
    first = ops.argsort(1 - member, axis=1)
    front = ops.take_along_axis(order, first, axis=1)
    return ops.cast(front, "int32"), ops.max(ops.sum(member, axis=1))


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def _scaled(gradient: Tensor) -> Tensor:
    """Bring each image's largest entry to 1, so that products neither vanish nor overflow."""
    gradient = ops.nan_to_num(gradient, posinf=1e37, neginf=-1e37)
    return gradient / ops.maximum(ops.max(ops.abs(gradient), axis=1, keepdims=True), 1e-37)
