"""Writes numbers the way a person reads them."""


def share(value: float | None) -> str:
    """An accuracy in [0, 1] with three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def size(count: float | None) -> str:
    """Bytes in decimal units: 512 B, 19 kB, 46.8 MB."""
    if count is None:
        return "-"
    # Half a step below 1000 already rounds up to the next unit.
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * limit:
            scaled = count / limit
            whole = scaled >= 100 or (unit == "kB" and scaled >= 10)
            return f"{scaled:.0f} {unit}" if whole else f"{scaled:.1f} {unit}"
    return f"{count:.0f} B"


def times(larger: float, smaller: float) -> str:
    """How many times `larger` is `smaller`: 2.1, 46, 2,200."""
    ratio = larger / max(smaller, 1)
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
