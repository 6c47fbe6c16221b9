"""Draws SVG by hand: shapes with words beside them, the same bytes every time.

Colours stand in attributes, for papers, and in classes, by which a page sets them again in the
dark. The user unit is a pixel of a narrow telephone.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from fedkd.report.verify.plain import escaped, seen

WIDTH: Final = 380
COLOURS: Final = {
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#8c959f",
    "one": "#0058a3",
    "two": "#b0480a",
    "box": "#f3f5f7",
    "warn": "#a3122b",
}
"""Ink, soft ink, lines, two kinds of bar, a box's ground, a warning; each has its own shape too."""
_CHARACTER: Final = 0.56
"""The width of a letter in a sans serif, as a part of its size, on average and rather wide."""


class Drawing(NamedTuple):
    """A picture: its name, what it shows in words, and the markup."""

    title: str
    description: str
    markup: str


def number(value: float) -> str:
    """A coordinate with one digit after the point, without a trailing zero or a negative zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def text(
    x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, colour: str = "ink",
    bold: bool = False,
) -> str:  # fmt: skip
    """Words at a point."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" font-size="{size}" '
        f"{_fill(colour)}{weight}>{escaped(words)}</text>"
    )


def fitted(words: str, width: float, size: int = 12) -> str:
    """`words` cut in the middle to `width`: names often differ at their end."""
    words = seen(words)
    most = max(4, int(width / (size * _CHARACTER)))
    if len(words) <= most:
        return words
    head = (most - 1) // 2
    return f"{words[:head]}…{words[len(words) - (most - 1 - head) :]}"


def box(
    x: float, y: float, width: float, height: float, *, colour: str = "box", edge: str = "line",
    dash: str = "", round: float = 4,
) -> str:  # fmt: skip
    """A rectangle with an edge."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
        f'height="{number(height)}" rx="{number(round)}" {_both(colour, edge)}{dashed}/>'
    )


def bar(x: float, y: float, width: float, height: float, *, colour: str) -> str:
    """A filled rectangle; never thinner than one unit, so that a small value is seen."""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(max(width, 1))}" '
        f'height="{number(height)}" {_fill(colour)}/>'
    )


def line(
    points: Sequence[tuple[float, float]], *, colour: str = "line", width: float = 1.2,
    dash: str = "", arrow: bool = False,
) -> str:  # fmt: skip
    """A line through points; `arrow` puts a head on its end."""
    steps = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    drawn = (
        f'<polyline points="{steps}" fill="none" {_stroke(colour)} '
        f'stroke-width="{number(width)}"{dashed}/>'
    )
    return drawn + (_head(points[-2], points[-1], colour) if arrow else "")


def _head(before: tuple[float, float], at: tuple[float, float], colour: str) -> str:
    x, y = at
    across, down = x - before[0], y - before[1]
    length = max((across * across + down * down) ** 0.5, 1e-9)
    ax, ay = across / length, down / length
    corners = (
        (x, y),
        (x - 7 * ax - 3.5 * ay, y - 7 * ay + 3.5 * ax),
        (x - 7 * ax + 3.5 * ay, y - 7 * ay - 3.5 * ax),
    )
    steps = " ".join(f"{number(one)},{number(other)}" for one, other in corners)
    return f'<polygon points="{steps}" {_fill(colour)}/>'


def mark(x: float, y: float, shape: str, *, colour: str) -> str:
    """A circle (filled) or a ring (open), nine across."""
    if shape == "circle":
        return f'<circle cx="{number(x)}" cy="{number(y)}" r="4.5" {_fill(colour)}/>'
    return (
        f'<circle cx="{number(x)}" cy="{number(y)}" r="4" stroke-width="2" {_both("box", colour)}/>'
    )


def drawing(
    id: str, height: float, title: str, description: str, parts: Sequence[str], width: int = WIDTH
) -> Drawing:
    """The whole picture, with a title and a description for those who do not see it."""
    size = f'viewBox="0 0 {width} {number(height)}" width="{width}" height="{number(height)}"'
    markup = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" '
            f'aria-labelledby="{id}-t {id}-d" font-family="sans-serif">',
            f'<title id="{id}-t">{escaped(title)}</title>',
            f'<desc id="{id}-d">{escaped(description)}</desc>',
            *parts,
            "</svg>",
        ]
    )
    return Drawing(title, description, markup)


def _fill(colour: str) -> str:
    return f'class="f-{colour}" fill="{COLOURS[colour]}"'


def _stroke(colour: str) -> str:
    return f'class="s-{colour}" stroke="{COLOURS[colour]}"'


def _both(colour: str, edge: str) -> str:
    fill, stroke = COLOURS[colour], COLOURS[edge]
    return f'class="f-{colour} s-{edge}" fill="{fill}" stroke="{stroke}"'
