"""Certificates: accuracy that no perturbation within a radius can take, by bounds and not by attacks."""

from kbl.certification.bounds import worst_logits
from kbl.certification.certify import certify
from kbl.certification.chain import Affine, Chain, chain

__all__ = ["Affine", "Chain", "certify", "chain", "worst_logits"]
