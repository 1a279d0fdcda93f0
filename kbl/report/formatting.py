"""Numbers as a reader wants them; what is missing or not a number becomes a dash."""

import math

MISSING = "—"


def number(value: object) -> float:
    """Return `value` as a float, or NaN for null, text that is no number, and any other type."""
    if not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def percent(fraction: float) -> str:
    """Write a fraction in [0, 1] as a percentage with one decimal: `0.8432` is `84.3 %`."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else MISSING


def percent_range(low: float, high: float) -> str:
    """Write two fractions as a range of percentages: `83.6–85.0 %`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def decimals(value: float) -> str:
    """Write a number with three decimals: `0.712`."""
    return f"{value:.3f}" if math.isfinite(value) else MISSING


def radius(epsilon: float) -> str:
    """Write a radius in pixel units of [0, 1]: `0.3` as it is, `0.0313725` as `8/255`."""
    if not math.isfinite(epsilon):
        return MISSING
    levels = 255 * epsilon
    is_short = math.isclose(epsilon, round(epsilon, 2), rel_tol=1e-5, abs_tol=1e-9)
    if not is_short and round(levels) > 0 and math.isclose(levels, round(levels), rel_tol=1e-4):
        return f"{round(levels)}/255"
    return f"{epsilon:.4g}"


def norm_symbol(norm: str) -> str:
    """Write the name of a norm: `l2` is `ℓ2`; one that is not known stays as it is."""
    return {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}.get(norm, norm)


def distance(value: float, norm: str) -> str:
    """Write how far an image was moved: `ℓ2 0.83`, `ℓ∞ 8/255`."""
    if math.isinf(value):
        return f"{norm_symbol(norm)} ∞"
    size = radius(value) if norm == "linf" or math.isnan(value) else f"{value:.3g}"
    return f"{norm_symbol(norm)} {size}"


def passes(forward: float, backward: float) -> str:
    """Write the mean number of passes through the network: `1,040 + 1,000`."""
    if not (math.isfinite(forward) and math.isfinite(backward)):
        return MISSING
    return " + ".join(f"{n:.1f}" if n < 10 and n % 1 else count(n) for n in (forward, backward))


def count(value: float) -> str:
    """Write a whole number with its thousands set apart: `10,000`."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING


def counted(value: int, noun: str) -> str:
    """Write a number with its noun: `1 check`, `13 checks`."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time span as a reader would: `4.2 s`, `3 min 20 s`, `5 h 02 min`."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
