"""Small pieces of HTML: text, links, tables, figures; whatever comes from a log is escaped here."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

from fedkd.report.verify.deriving import Place
from fedkd.report.verify.evidence import Told
from fedkd.report.verify.picture import Drawing
from fedkd.report.verify.plain import escaped


class Html(str):
    """Markup that was put together here; every other text is escaped before it is shown."""

    __slots__ = ()


Cell = str | Html
_SHOWN_PLACES: Final = 4


class Table(NamedTuple):
    """A caption, the heads of the columns, and rows; the first cell of a row names it."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Chart(NamedTuple):
    """A picture with its name in the page, the same in a table, and what has to be said of it."""

    id: str
    drawing: Drawing
    table: Table
    notes: tuple[Cell, ...]


def words(text: Cell) -> Html:
    """Text as it may stand in a page."""
    return text if isinstance(text, Html) else Html(escaped(text))


def joined(parts: Iterable[Cell], between: str = "") -> Html:
    """Pieces one after the other."""
    return Html(between.join(words(part) for part in parts))


def element(name: str, *inside: Cell, **attributes: str) -> Html:
    """An element; `class_` and `for_` are written without their underscore, `a_b` as `a-b`."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{told}>{joined(inside)}</{name}>")


def badge(status: str) -> Html:
    """A status as a word in a frame: neither colour nor frame has to be seen to tell it."""
    return element("span", status, class_=f"badge {status.lower().replace(' ', '-')}")


def entry_id(place: Place | Told) -> str:
    """The name of an entry's place in the page."""
    party = place.log if isinstance(place, Place) else place.party
    return f"entry/{quote(party, safe='')}/{place.index}"


def log_id(party: str) -> str:
    """The name of a log's place in the page."""
    return f"log/{quote(party, safe='')}"


def link(to: str, text: Cell, **attributes: str) -> Html:
    """A link within the page."""
    return element("a", text, href=f"#{to}", **attributes)


def to_entry(place: Place | Told) -> Html:
    """A link to an entry, as `party#index`."""
    party = place.log if isinstance(place, Place) else place.party
    return link(entry_id(place), f"{party}#{place.index}", class_="entry")


def to_entries(places: Sequence[Place | Told], most: int = _SHOWN_PLACES) -> Html:
    """Links to the first entries, and how many more there are."""
    more = f" and {len(places) - most:,} more" if len(places) > most else ""
    return Html(joined((to_entry(one) for one in places[:most]), ", ") + more)


def table(told: Table, *, narrow: bool = True) -> Html:
    """A table; on a narrow screen each row becomes a block of its own, its heads beside the cells.

    Roles are said, because some browsers forget them of a table that is laid out otherwise.
    """
    heads = joined(element("th", head, scope="col", role="columnheader") for head in told.heads)
    rows = joined(_row(told.heads, row) for row in told.rows)
    return element(
        "table",
        element("caption", told.caption),
        element("thead", element("tr", heads, role="row"), role="rowgroup"),
        element("tbody", rows, role="rowgroup"),
        role="table",
        class_="narrow" if narrow else "wide",
    )


def _row(heads: Sequence[str], row: Sequence[Cell]) -> Html:
    first, *rest = row
    cells = [element("th", first, scope="row", role="rowheader")]
    for head, cell in zip(heads[1:], rest, strict=True):
        cells.append(element("td", cell, role="cell", data_head=head))
    return element("tr", *cells, role="row")


def details(summary: Cell, *inside: Cell, **attributes: str) -> Html:
    """Something that is opened on request."""
    return element("details", element("summary", summary), *inside, **attributes)


def section(id: str, heading: str, *inside: Cell, level: int = 2, **attributes: str) -> Html:
    """A part of the page with a heading that names it."""
    named = f"{id}-h"
    head = element(f"h{level}", heading, id=named)
    return element("section", head, *inside, id=id, aria_labelledby=named, **attributes)
