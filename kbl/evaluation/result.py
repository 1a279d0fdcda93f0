"""What an evaluation found, to and from JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from kbl.files import write_text

SCHEMA = 2


@dataclass(frozen=True)
class AttackResult:
    """One attack's outcome over all images.

    Args:
        name: the attack's name.
        label: what tables call it.
        parameters: its fields.
        accuracy: fraction of all images that it leaves right; clean mistakes count as mistakes. Of a part of
            AutoAttack: what is left right after it.
        seconds: time it took.
        attacked: number of images it was tried on.
        worst: fraction that this attack and all before it leave right; None where it has no ε to count in.
        forward: forward passes of single images.
        backward: backward passes of single images.
        distance: ``{"norm", "median"}`` of what a minimum-norm attack found (infinite where it found nothing).
        parts: the attacks that it consists of, each tried on what the earlier ones left.
    """

    name: str
    label: str
    parameters: dict[str, Any]
    accuracy: float
    seconds: float
    attacked: int = 0
    worst: float | None = None
    forward: int = 0
    backward: int = 0
    distance: dict[str, Any] | None = None
    parts: list["AttackResult"] = field(default_factory=list)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the result of `dataclasses.asdict`."""
        parts = [cls.from_dict(part) for part in content.get("parts", ())]
        return cls(**{**content, "parts": parts})


@dataclass(frozen=True)
class Result:
    """Accuracy of a network on clean and attacked images, and what makes it less trustworthy.

    Args:
        backend: Keras backend that it was measured on.
        examples: N, the number of images.
        clean: fraction of the N that are right unattacked.
        robust: fraction that every attack with an ε leaves right (pointwise worst case). Black-box attacks on a
            substitute are no part of it.
        attacks: each attack's own outcome.
        warnings: diagnostics that fired, as ``{"name", "message", "remedy"}``.
        checks: names of all diagnostics that were run.
        transfer: ``{"substitute", "clean", "robust", "attacks"}``, of images crafted on a substitute network.
        certified: ``{"epsilon", "norm", "accuracy", "seconds"}``: the fraction that is right and provably so within ε.
        detection: how well log-likelihood tells adversarial images, see `kbl.evaluation.detection`.
        rejection: accuracy when unlikely images are rejected, see `kbl.evaluation.detection`.
        versions: package versions.
        epsilon_curve: accuracy under one attack against ε, as ``{"epsilon", "accuracy", "attack"}``, the label of it.
        seconds: time of the whole evaluation.
    """

    backend: str
    examples: int
    clean: float
    robust: float
    attacks: list[AttackResult] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    transfer: dict[str, Any] | None = None
    certified: dict[str, Any] | None = None
    detection: dict[str, Any] | None = None
    rejection: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    epsilon_curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``, with 95 % Wilson intervals of its two accuracies."""
        from kbl.report import wilson_interval  # with it come Matplotlib and more, which few need

        named = {"clean": self.clean, "robust": self.robust}
        intervals = {name: list(wilson_interval(value, self.examples)) for name, value in named.items()}
        return {"schema": SCHEMA, **asdict(self), "intervals": intervals}

    def to_json(self) -> str:
        """Return ``evaluation.json`` as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write an ``evaluation.json``."""
        write_text(Path(path), self.to_json())

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Return the result of `to_dict`, also of the first schema, which had fewer fields.

        Raises:
            ValueError: the content is of another schema.
        """
        if content.get("schema") not in (1, SCHEMA):
            raise ValueError(f"Expected schema {SCHEMA}. Received: schema={content.get('schema')!r}")
        fields = {key: value for key, value in content.items() if key not in ("schema", "intervals")}
        fields["attacks"] = [AttackResult.from_dict(attack) for attack in fields["attacks"]]
        return cls(**fields)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an ``evaluation.json``."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_markdown(self) -> str:
        """Return a table with 95 % Wilson intervals, and the warnings."""
        from kbl.report import accuracy_markdown

        return accuracy_markdown({self.backend: self.to_dict()})

    def plot(self) -> Any:
        """Return a Matplotlib figure: the accuracy under each attack, with its interval."""
        from kbl.report import evaluation_figure

        return evaluation_figure(self.to_dict())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from kbl.report import evaluation_html

        return evaluation_html(self.to_dict())
