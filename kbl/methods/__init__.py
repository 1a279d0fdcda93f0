"""Training methods: what is crafted from a batch and what loss is taken on the result."""

from kbl.methods.adversarial_training import AdversarialTraining
from kbl.methods.atblr import ATBLR
from kbl.methods.awp import AWP
from kbl.methods.method import Method
from kbl.methods.natural import Natural

__all__ = ["ATBLR", "AWP", "AdversarialTraining", "Method", "Natural"]
