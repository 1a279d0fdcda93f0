"""What a suite's file may say: many runs of one base recipe, and the table or figures that they make."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kbl.recipe.fields import Flag, Name, Number, Section, Seed

ScaleName = Literal["paper", "gpu", "cpu"]
Changes = dict[str, Any]  # dotted key of a recipe: value


class Scale(Section):
    """How much is computed: the paper's own schedule, or less."""

    note: str  # what differs from the paper; stands in every output
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    changes: Changes = Field(default_factory=dict)


class Group(Section):
    """Rows under one heading, with what their recipes share."""

    id: Name
    label: str
    changes: Changes = Field(default_factory=dict)
    scales: dict[ScaleName, Changes] = Field(default_factory=dict)


class Run(Section):
    """One row: a method, with the paper's values for it."""

    id: Name
    label: str
    group: str | None = None
    changes: Changes = Field(default_factory=dict)
    scales: dict[ScaleName, Changes] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()  # dotted keys that the recipe of this run does not have
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict
    )  # one run for each value of each dotted key
    paper: dict[str, Number] = Field(default_factory=dict)  # label of a measure: accuracy in %


class Measure(Section):
    """One column: clean accuracy, or that under the attack of a label."""

    label: str
    attack: str | None = None  # the attack's label in the evaluation; none is clean accuracy
    black_box: Flag = False  # crafted on the substitute


class Likelihood(Section):
    """The two curves of the likelihood regularization while training, a panel for each run (the paper's Fig. 3)."""

    kind: Literal["likelihood"]
    runs: tuple[str, ...]


class Sweep(Section):
    """Accuracy against a value of the recipe, a panel for each group (the paper's Fig. 4)."""

    kind: Literal["sweep"]
    key: str
    axis: str


class Features(Section):
    """Features of clean and adversarial images in a plane, a panel for each run (the idea of the paper's Fig. 1)."""

    kind: Literal["features"]
    runs: tuple[str, ...]


Figure = Annotated[Likelihood | Sweep | Features, Field(discriminator="kind")]


class Suite(Section):
    """What a suite's file says."""

    name: Name
    title: str
    base: dict[str, Any]  # the sections of a recipe
    scales: Annotated[dict[ScaleName, Scale], Field(min_length=1)]
    groups: tuple[Group, ...] = ()
    runs: Annotated[tuple[Run, ...], Field(min_length=1)]
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)]
    transposed: Flag = False  # measures as rows
    figures: tuple[Figure, ...] = ()


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Options(Section):
    """What `--set` says of the suite itself: one seed or id may stand without its list."""

    scale: ScaleName | None = None
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_listed), Field(min_length=1)] | None = None
    only: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)] | None = None
