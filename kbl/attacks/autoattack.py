"""AutoAttack and the standard list: sets of attacks that need no settings but ε."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

import keras
import numpy as np
from keras import ops

from kbl.attacks import checks
from kbl.attacks.apgd import APGD
from kbl.attacks.attack import Attack, settle_numbers
from kbl.attacks.fab import FAB
from kbl.attacks.outcome import Outcome, Progress
from kbl.attacks.prediction import predict
from kbl.attacks.square import Square
from kbl.typing import Network, Norm, Tensor

Version = Literal["standard", "plus", "rand", "custom"]


@keras.saving.register_keras_serializable(package="kbl")
@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack (Croce & Hein, arXiv:2003.01690): attacks one after the other, each on what the earlier ones left.

    - "standard": APGD on cross-entropy, APGD-T on targeted DLR with 9 targets, FAB-T with 9 targets, Square with 5,000
      queries; 100 steps each.
    - "plus": APGD-CE and APGD-DLR with 5 restarts, FAB with 5, Square, APGD-T, FAB-T.
    - "rand", for networks that are random: APGD-CE and APGD-DLR, gradients averaged over 20 passes.
    - "custom": `attacks`.

    Differs from the reference: on fewer than four classes (DLR: three), for which DLR is not defined, the margin stands
    in for it; random numbers belong to the image, not the batch.

    Args:
        epsilon: radius ε ≥ 0, in pixel units.
        norm: "linf" or "l2".
        version: which list.
        attacks: those of "custom": untargeted, in the same ball or a smaller one.
        name: how reports call it.

    Raises:
        ValueError: a field is out of its range, or two do not go together.
    """

    epsilon: float
    norm: Norm = "linf"
    version: Version = "standard"
    attacks: tuple[Any, ...] = ()
    name: str = "autoattack"

    minimum_norm: ClassVar[bool] = False
    targeted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise ValueError(
                f"version must be one of {get_args(Version)}. Received: version={self.version!r}"
            )
        if (self.version == "custom") != bool(self.attacks):
            raise ValueError('attacks belong to version="custom", and only to it')
        settle_numbers(self)
        APGD(self.epsilon, norm=self.norm)
        for part in self.attacks:
            radius = getattr(part, "epsilon", None)
            norm = getattr(part, "norm", "linf")
            if radius is None or radius > self.epsilon or norm != self.norm:
                raise ValueError(
                    f"attacks must stay in the ball of norm={self.norm!r}, epsilon={self.epsilon}. "
                    f"Received: {part.label} of norm={norm!r}, epsilon={radius}"
                )
            if getattr(part, "targeted", False):
                raise ValueError(f"attacks must not be targeted. Received: {part.label}")

    def parts(self, classes: int) -> list[Attack]:
        """Return its attacks for a network of so many classes, in their order."""
        epsilon, norm = self.epsilon, self.norm
        cross_entropy = APGD(epsilon, norm=norm)
        dlr = APGD(epsilon, norm=norm, loss="dlr" if classes > 2 else "margin")
        targeted = APGD(epsilon, norm=norm, loss="dlr" if classes > 3 else "margin", targets=9)
        boundary = FAB(epsilon, norm=norm)
        lists: dict[str, list[Attack]] = {
            "standard": [cross_entropy, targeted, replace(boundary, targets=9), Square(epsilon, norm=norm)],
            "plus": [
                replace(cross_entropy, restarts=5),
                replace(dlr, restarts=5),
                replace(boundary, restarts=5),
                Square(epsilon, norm=norm),
                targeted,
                replace(boundary, targets=9),
            ],
            "rand": [replace(cross_entropy, eot=20), replace(dlr, eot=20)],
            "custom": list(self.attacks),
        }
        return lists[self.version]

    __call__ = Attack.__call__

    def search(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        *,
        index: Tensor | None = None,
        batch_size: int = 128,
        progress: Callable[[Progress], None] | None = None,
        **options: Any,
    ) -> Outcome:
        """Return what `Attack.search` returns: of each image what the first part found that fools it, or the last."""
        images = checks.images(x)
        checks.fit(network, images.shape[1:])
        total = len(images)
        outcome = Outcome(images.copy(), np.zeros(total, bool), np.full(total, -np.inf, "float32"))
        if total == 0:
            return outcome
        checks.size(batch_size)
        classes = predict(network, images[:8], batch_size).shape[1]
        checks.attack(self, images.shape[1:], classes)
        labels = checks.labels(y, total, classes)
        places = np.arange(total, dtype="int32") if index is None else np.asarray(ops.convert_to_numpy(index))
        parts = self.parts(classes)
        for number, part in enumerate(parts):
            rows = np.flatnonzero(~outcome.fooled)
            if len(rows) == 0:
                break

            def listen(state: Progress, number: int = number, rows: Any = rows) -> None:
                if progress is not None:
                    done = (number + state.done / state.total) / len(parts)
                    progress(Progress(done * total, total, state.standing))

            found = part.search(
                network,
                images[rows],
                labels[rows],
                index=places[rows],
                batch_size=batch_size,
                progress=listen,
                **options,
            )
            outcome.x_adv[rows], outcome.fooled[rows] = found.x_adv, found.fooled
            outcome.score[rows] = found.score
            outcome.forward += found.forward
            outcome.backward += found.backward
        return outcome

    @property
    def label(self) -> str:
        """Short name with its version."""
        return f"AutoAttack {self.version}" + (", L2" if self.norm == "l2" else "")

    def get_config(self) -> dict[str, Any]:
        """Return the fields; the attacks as Keras serialises them."""
        attacks = [keras.saving.serialize_keras_object(attack) for attack in self.attacks]
        return {
            **asdict(replace(self, version="standard", attacks=())),
            "version": self.version,
            "attacks": attacks,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the attack with these fields."""
        attacks = tuple(keras.saving.deserialize_keras_object(attack) for attack in config["attacks"])
        return cls(**{**config, "attacks": attacks})


def adaptive(epsilon: float, norm: Norm = "linf", steps: int = 100) -> list[Attack]:
    """Attacks made for a Gaussian head (`kbl.layers.GMMHead`), which act on its distances.

    They raise the distance to the right mean, ‖h - μ_y‖²; lower that to each of nine wrong means, one after the other;
    and raise the margin of the distances.

    Args:
        epsilon: radius ε ≥ 0, in pixel units.
        norm: "linf" or "l2".
        steps: steps of each.
    """
    attack = APGD(epsilon, steps, norm=norm)
    return [
        replace(attack, loss="likelihood", name="adaptive"),
        replace(attack, loss="nearest_mean", targets=9, name="adaptive"),
        replace(attack, loss="distance_margin", name="adaptive"),
    ]


def standard(epsilon: float, norm: Norm = "linf", *, gaussian_head: bool = False) -> list[Any]:
    """The list to judge a network by: AutoAttack, for a Gaussian head with the attacks made for it.

    Args:
        epsilon: radius ε ≥ 0, in pixel units.
        norm: "linf" or "l2".
        gaussian_head: whether the network ends with a `kbl.layers.GMMHead`.
    """
    return [AutoAttack(epsilon, norm), *(adaptive(epsilon, norm) if gaussian_head else [])]
