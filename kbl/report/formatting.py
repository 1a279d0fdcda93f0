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


def radius(epsilon: float) -> str:
    """Write a radius in pixel units of [0, 1]: `0.3` as it is, `0.0313725` as `8/255`."""
    if not math.isfinite(epsilon):
        return MISSING
    levels = 255 * epsilon
    is_short = math.isclose(epsilon, round(epsilon, 2), rel_tol=1e-5, abs_tol=1e-9)
    if not is_short and round(levels) > 0 and math.isclose(levels, round(levels), rel_tol=1e-4):
        return f"{round(levels)}/255"
    return f"{epsilon:.4g}"


def count(value: float) -> str:
    """Write a whole number with its thousands set apart: `10,000`."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING


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
