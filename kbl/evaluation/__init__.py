"""The judge: accuracy on clean and attacked images, and what makes it less trustworthy."""

from kbl.evaluation.any_model import as_network
from kbl.evaluation.result import AttackResult, Result
from kbl.evaluation.robustness import evaluate
from kbl.evaluation.standard import standard_for
from kbl.evaluation.versions import versions

__all__ = ["AttackResult", "Result", "as_network", "evaluate", "standard_for", "versions"]
