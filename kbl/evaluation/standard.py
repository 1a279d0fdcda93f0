"""The standard list for a given network."""

from typing import Any

from kbl.attacks import standard
from kbl.layers import has_gmm_head
from kbl.typing import Network, Norm


def standard_for(network: Network, epsilon: float, norm: Norm = "linf") -> list[Any]:
    """Return `kbl.attacks.standard`, with those attacks made for a Gaussian head that have a meaning on the network's.

    With a diagonal covariance "distance_margin" has none: -2 times a logit is a squared distance plus log det Σ, whose
    root, and with it the gradient, may not be there. To the other losses log det Σ is a constant.

    Args:
        network: what is attacked.
        epsilon: radius ε ≥ 0, in pixel units.
        norm: "linf" or "l2".
    """
    found = standard(epsilon, norm, gaussian_head=has_gmm_head(network))
    if has_gmm_head(network, "diagonal"):
        return [attack for attack in found if getattr(attack, "loss", "") != "distance_margin"]
    return found
