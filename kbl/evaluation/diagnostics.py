"""Signs that an evaluation is too kind to a network: each with a name, what it means and what to do."""

from collections.abc import Callable
from typing import NamedTuple

from kbl.evaluation import signs
from kbl.evaluation.signs import Evidence


class Diagnostic(NamedTuple):
    """One sign: `find` says what was seen, or returns None."""

    name: str
    remedy: str
    find: Callable[[Evidence], str | None]
    needs_probes: bool = False


def diagnose(evidence: Evidence) -> tuple[list[dict[str, str]], list[str]]:
    """Return the warnings, as ``{"name", "message", "remedy"}``, and the names of all diagnostics that were run."""
    run = [d for d in DIAGNOSTICS if evidence.probes is not None or not d.needs_probes]
    found = [(diagnostic, diagnostic.find(evidence)) for diagnostic in run]
    warnings = [{"name": d.name, "message": message, "remedy": d.remedy} for d, message in found if message]
    return warnings, [diagnostic.name for diagnostic in run]


DIAGNOSTICS = (
    Diagnostic("probabilities", "Evaluate the network without its softmax.", signs.probabilities),
    Diagnostic("half_precision", "Cast the logits to float32 in the last layer.", signs.half_precision, True),
    Diagnostic(
        "nan_logits",
        "Find what returns NaN (a logarithm, a division, an overflow): its gradient misleads attacks, too.",
        signs.nan_logits,
    ),
    Diagnostic("few_classes", "Nothing: judge by the worst case, which holds.", signs.few_classes),
    Diagnostic(
        "clean_mistakes",
        "Check labels, pixel range and preprocessing before speaking of robustness.",
        signs.clean_mistakes,
    ),
    Diagnostic(
        "random_network",
        'Switch the randomness off, or evaluate with AutoAttack\'s version "rand", which averages gradients.',
        signs.random_network,
        True,
    ),
    Diagnostic(
        "batch_dependence",
        "Use batch statistics in training only: normalisation must run in inference mode.",
        signs.batch_dependence,
        True,
    ),
    Diagnostic(
        "zero_gradients",
        "Judge by the margin, DLR and Square; look for saturation, quantisation or a step that has no gradient.",
        signs.zero_gradients,
        True,
    ),
    Diagnostic(
        "loss_not_rising",
        "Look for a layer whose gradient is not that of its output, and attack through a smooth stand-in (BPDA).",
        signs.loss_not_rising,
        True,
    ),
    Diagnostic(
        "survives_any_change",
        "Do not quote these accuracies; find why the gradients mislead, and use Square and transfer attacks.",
        signs.survives_any_change,
        True,
    ),
    Diagnostic(
        "black_box_stronger",
        "Believe the black-box attack; look for masked gradients, and write an attack for this defence.",
        signs.black_box_stronger,
    ),
    Diagnostic(
        "cross_entropy_weaker",
        "Judge by the worst case, and attack with the margin, DLR and more restarts.",
        signs.cross_entropy_weaker,
    ),
    Diagnostic(
        "rounding",
        "Where images are stored in 8 bits, quote the accuracy on rounded images as well.",
        signs.rounding,
    ),
)
"""Every diagnostic, in the order of the report. `docs/evaluation.md` says more of each."""
