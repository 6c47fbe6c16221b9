"""Writes SVG by hand: a few shapes, text that a screen reader finds, the same bytes every time."""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#00795A"
INK, SOFT, GRID = "#1a1a1a", "#595959", "#dddddd"
WARNING = "#a63c00"
"""Okabe and Ito's colours (2008), told apart by the colour-blind; each also has its own shape."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"


def number(value: float) -> str:
    """A coordinate with one digit after the point, without a trailing zero or a negative zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 13,
    colour: str = INK,
    bold: bool = False,
    turn: bool = False,
) -> str:
    """Words at a point; `turn` sets them upwards."""
    turned = f' transform="rotate(-90 {number(x)} {number(y)})"' if turn else ""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}"{weight}{turned}>{escape(words)}</text>'
    )


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    colour: str = GRID,
    width: float = 1,
    dash: str = "",
) -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
        f'stroke="{colour}" stroke-width="{number(width)}"{dashed}/>'
    )


def path(points: Sequence[tuple[float, float]], *, colour: str, dash: str = "") -> str:
    """A line through points."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def mark(x: float, y: float, shape: str, *, colour: str, title: str = "") -> str:
    """A circle, ring, square or triangle, 9 across; `title` is read out and shown on hovering."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    if shape in ("circle", "ring"):
        fill, stroke = (colour, colour) if shape == "circle" else ("#ffffff", colour)
        body = f'circle cx="{number(x)}" cy="{number(y)}" r="4.5" fill="{fill}" stroke="{stroke}"'
        return f'<{body} stroke-width="2">{inside}</circle>'
    if shape == "square":
        body = f'rect x="{number(x - 4.5)}" y="{number(y - 4.5)}" width="9" height="9"'
        return f'<{body} fill="{colour}">{inside}</rect>'
    corners = f"{number(x)},{number(y - 5.5)} {number(x + 5.5)},{number(y + 4.5)} "
    corners += f"{number(x - 5.5)},{number(y + 4.5)}"
    return f'<polygon points="{corners}" fill="{colour}">{inside}</polygon>'


def bar(x: float, y: float, width: float, height: float, *, colour: str, title: str) -> str:
    """A filled rectangle; never thinner than one unit, so that a small value is seen."""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(max(width, 1))}" '
        f'height="{number(height)}" fill="{colour}"><title>{escape(title)}</title></rect>'
    )


def drawing(
    width: int,
    height: int,
    title: str,
    description: str,
    parts: Sequence[str],
    *,
    warning: str = "",
    metadata: str = "",
) -> str:
    """The whole file: a title and a description for those who do not see it, then the parts.

    A `warning` stands below all of it, and first in the description; `metadata` travels inside,
    unseen.
    """
    if warning:
        parts = [*parts, text(24, height + 12, warning, colour=WARNING, bold=True)]
        description, height = f"{warning} {description}", height + 28
    if metadata:
        parts = [f"<metadata>{escape(metadata)}</metadata>", *parts]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="title desc" '
            f"font-family={quoteattr(FONT)}>",
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(description)}</desc>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def shortened(words: str, most: int) -> str:
    """`words` cut in the middle to `most` characters: names often differ at their end."""
    if len(words) <= most:
        return words
    head = (most - 1) // 2
    return f"{words[:head]}…{words[len(words) - (most - 1 - head) :]}"


def share_axis(values: Sequence[float]) -> tuple[float, float]:
    """A round part of [0, 1] that holds `values`, at least 0.2 wide, in steps of 0.1."""
    if not values:
        return 0.0, 1.0
    low = int(max(0.0, min(values) - 0.02) * 10) / 10
    high = -int(-min(1.0, max(values) + 0.02) * 10 // 1) / 10
    while high - low < 0.199:
        low, high = max(0.0, round(low - 0.1, 1)), min(1.0, round(high + 0.1, 1))
    return low, high


def ticks(low: float, high: float) -> list[float]:
    """Multiples of 0.1 from `low` to `high`, every second one where there are many."""
    steps = round((high - low) * 10)
    stride = 1 if steps <= 5 else 2
    return [round(low + step / 10, 1) for step in range(0, steps + 1, stride)]
