"""What an evaluation found, to and from JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class AttackResult:
    """One attack's outcome over all images; `accuracy` counts clean mistakes as mistakes."""

    name: str
    label: str
    parameters: dict[str, Any]
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """Accuracy of a network on clean and attacked images.

    Args:
        backend: Keras backend that it was measured on.
        examples: N, the number of images.
        clean: fraction of the N that are right unattacked.
        robust: fraction that every attack leaves right (pointwise worst case).
        attacks: each attack's own outcome.
        warnings: what makes the numbers less trustworthy, as ``{"name", "message", "remedy"}``.
        versions: package versions.
        epsilon_curve: robust accuracy of one attack against ε, as ``{"epsilon", "accuracy"}``.
        seconds: time of the whole evaluation.
    """

    backend: str
    examples: int
    clean: float
    robust: float
    attacks: list[AttackResult] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    epsilon_curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``evaluation.json``."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """Return ``evaluation.json`` as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Result":
        """Return the result of `to_dict`.

        Raises:
            ValueError: the content is of another schema.
        """
        if content.get("schema") != SCHEMA:
            raise ValueError(f"Expected schema {SCHEMA}. Received: schema={content.get('schema')!r}")
        fields = {key: value for key, value in content.items() if key != "schema"}
        fields["attacks"] = [AttackResult(**attack) for attack in fields["attacks"]]
        return cls(**fields)

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read an ``evaluation.json``."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
