"""What a number of examples leaves open."""

import math
from statistics import NormalDist


def wilson_interval(fraction: float, examples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n), with z the two-sided normal quantile.

    Args:
        fraction: The observed proportion p, in [0, 1]; NaN gives (NaN, NaN).
        examples: How many examples n it was observed on; 0 gives (NaN, NaN).
        confidence: The coverage, between 0 and 1.

    Returns:
        The lower and the upper bound, both in [0, 1].

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if examples < 0:
        raise ValueError(f"`examples` must be 0 or more. Received: examples={examples}")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1. Received: confidence={confidence}")
    if math.isnan(fraction) or examples == 0:
        return math.nan, math.nan
    if not 0 <= fraction <= 1:
        raise ValueError(f"`fraction` must lie in [0, 1]. Received: fraction={fraction}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z**2 / examples
    centre = (fraction + z**2 / (2 * examples)) / shrink
    spread = z * math.sqrt(fraction * (1 - fraction) / examples + z**2 / (4 * examples**2)) / shrink
    return max(0.0, centre - spread), min(1.0, centre + spread)
