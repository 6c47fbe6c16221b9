"""Draws a report as one HTML page that needs nothing else: its evidence is inside.

The page asks the network for nothing, and a policy of its own (CSP) forbids it: the one style and
the one script are let in by their digests, and text of logs and persons stays text.
"""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final

from fedkd.report.verify.deriving import STATUSES, Derived
from fedkd.report.verify.digests import digest
from fedkd.report.verify.heading import NOT_FOR_FILING, made_at, standing, title, warnings
from fedkd.report.verify.page_entries import logs
from fedkd.report.verify.page_fields import chapters, coverage, field_sections, supply
from fedkd.report.verify.page_minute import minute
from fedkd.report.verify.page_parts import (
    Chart,
    Html,
    badge,
    details,
    element,
    joined,
    link,
    section,
    table,
    words,
)
from fedkd.report.verify.picture_charts import charts
from fedkd.report.verify.picture_lineage import lineage_chart
from fedkd.report.verify.plain import escaped

_INSIDE: Final = re.compile(
    rb'<script type="application/json" id="evidence" data-encoding="base64">([A-Za-z0-9+/=]*)'
    rb"</script>"
)
_ON_EVERY_PAGE: Final = """@page {
  @top-center { content: "%s"; font: bold 9pt sans-serif; color: #a3122b; }
}
"""
_LAW: Final = {
    "base": "Law",
    "annex_iv": "Annex IV",
    "dates": "Dates",
    "source": "Read in",
    "checked": "Checked on",
    "caveat": "What this is worth",
}


def embedded(content: bytes) -> bytes | None:
    """The evidence that a page carries, or None."""
    found = _INSIDE.findall(content)
    return base64.b64decode(found[0]) if len(found) == 1 else None


def page(derived: Derived, bundle: bytes) -> str:
    """The page."""
    inside = base64.b64encode(bundle).decode()
    evidence = (
        f'<script type="application/json" id="evidence" data-encoding="base64">{inside}</script>'
    )
    return _page(derived, bundle, Html(evidence), _file("page.js"))


def printed(derived: Derived, bundle: bytes, *, drawn_with: str = "") -> str:
    """The page for paper: without the evidence inside, without a script."""
    return _page(derived, bundle, Html(""), "", drawn_with)


def _page(
    derived: Derived, bundle: bytes, evidence: Html, script: str, drawn_with: str = ""
) -> str:
    generator = ", ".join(filter(None, ("fedkd", derived.catalogue.id, drawn_with)))
    style = _file("page.css") + (_ON_EVERY_PAGE % _running(derived))
    if not script:
        style = _colours_of_paper(style)
    policy = [
        "default-src 'none'", f"style-src {_let_in(style)}", "img-src data:", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip
    policy += [f"script-src {_let_in(script)}"] if script else []
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escaped("; ".join(policy))}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="robots" content="noindex">',
        f'<meta name="dcterms.created" content="{escaped(made_at(derived))}">',
        f'<meta name="dcterms.modified" content="{escaped(made_at(derived))}">',
        f'<meta name="generator" content="{escaped(generator)}">',
        '<link rel="icon" href="data:,">',
        f"<title>{escaped(_name(derived))}</title>",
        f"<style>{style}</style>",
    ]
    body = [
        link("main", "Skip to the report", class_="skip"),
        _warnings(derived),
        f'<div class="page">{_header(derived)}',
        _contents(derived),
        _main(derived, bundle, paper=not script),
        f"{_footer(derived)}</div>",
        evidence,
        f"<script>{script}</script>" if script else "",
    ]
    return "\n".join(
        ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body,
         "</body>", "</html>", ""]
    )  # fmt: skip


def _file(name: str) -> str:
    return files("fedkd.report.verify").joinpath(name).read_text(encoding="utf-8")


def _colours_of_paper(style: str) -> str:
    """The style with the colours of paper set in: what draws papers is slow to look them up."""
    paper = style[style.index("@media print") :]
    colours = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]+);", paper))
    return re.sub(r"var\((--[a-z-]+)\)", lambda found: colours[found[1]], style)


def _let_in(content: str) -> str:
    made = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(made).decode()}'"


def _running(derived: Derived) -> str:
    """What stands on every page of paper: plain letters, for it stands in a style."""
    if derived.simulation:
        return NOT_FOR_FILING
    return re.sub(r"[^A-Za-z0-9 .:-]", "?", title(derived))


def _name(derived: Derived) -> str:
    return f"SIMULATION: {title(derived)}" if derived.simulation else title(derived)


def _warnings(derived: Derived) -> Html:
    found = warnings(derived)
    if not found:
        return Html("")
    items = (element("li", element("span", line)) for line in found)
    return element("aside", element("ul", *items, class_="warnings"), aria_label="Warnings")


def _header(derived: Derived) -> Html:
    return element(
        "header",
        element("h1", title(derived)),
        element("p", _subtitle(derived), class_="subtitle"),
        element("p", standing(derived), class_="subtitle"),
    )


def _subtitle(derived: Derived) -> str:
    if derived.evidence.alone:
        return "Its record of processing and facts for an impact assessment (GDPR, Art. 30 and 35)"
    return "After EU AI Act, Annex IV, with points of GDPR and NIST AI RMF"


def _contents(derived: Derived) -> Html:
    shown = [
        ("minute", "In one minute"),
        ("coverage", "Coverage at a glance"),
        ("pictures", "In pictures"),
        ("supply", "What a person still has to supply"),
        ("fields", "All fields"),
        *((id, name) for id, name, _ in chapters(derived)),
        ("law", "Law and dates"),
        ("logs", "The logs behind it"),
        ("check", "How to check this page"),
    ]
    items = (element("li", link(id, name)) for id, name in shown)
    inside = details(element("span", "Contents"), element("ul", *items))
    return element("nav", inside, aria_label="Contents", class_="contents")


def _main(derived: Derived, bundle: bytes, *, paper: bool) -> Html:
    order = (
        "Data protection first, then what else a hospital is asked for."
        if derived.evidence.alone
        else "In the order of Annex IV, then of the other articles."
    )
    said = (
        f"{order} Each sentence opens the entries that it follows from; each has a link of its own."
    )
    inside = joined(
        (
            minute(derived),
            coverage(derived),
            _pictures(derived),
            supply(derived),
            section(
                "fields", "All fields", element("p", said), Html("") if paper else _filter(derived)
            ),
            field_sections(derived, paper=paper),
            _law(derived),
            logs(derived, paper=paper),
            _check(derived, bundle),
        ),
        "\n",
    )
    return element("main", inside, id="main", tabindex="-1")


def _pictures(derived: Derived) -> Html:
    lineage = "" if derived.evidence.alone else lineage_chart(derived)
    inside = []
    if lineage and isinstance(lineage, str):
        inside.append(element("p", lineage, class_="doubt"))
    drawn = [one for one in (lineage, *charts(derived)) if isinstance(one, Chart)]
    figures = element("div", *map(_figure, drawn), class_="figures")
    return section("pictures", "In pictures", *inside, figures)


def _figure(chart: Chart) -> Html:
    notes = [
        one
        if str(one).startswith(("<details", "<p")) and isinstance(one, Html)
        else element("p", one)
        for one in chart.notes
    ]
    caption = element("figcaption", element("h3", chart.drawing.title), id=f"{chart.id}-c")
    return element(
        "figure",
        caption,
        Html(chart.drawing.markup),
        element("div", *notes, class_="note"),
        details("The same in a table", table(chart.table)),
        id=chart.id,
        aria_labelledby=f"{chart.id}-c",
    )


def _filter(derived: Derived) -> Html:
    """Hidden until the script shows it: it does nothing without."""
    choices = joined(
        element("label", Html(f'<input type="checkbox" value="{status}" checked>'), badge(status))
        for status in STATUSES
    )
    asked = sorted({answer.field.asks for answer in derived.answers})
    options = joined(element("option", role, value=role) for role in asked)
    anybody = element("option", "anybody", value="")
    return Html(
        '<div class="filter" id="filter" role="search" aria-label="Filter the fields" hidden>'
        '<label class="label" for="filter-words">Words in a field</label>'
        '<input type="search" id="filter-words" autocomplete="off" spellcheck="false">'
        "<fieldset><legend>Status of the field</legend>"
        f'<div class="choices">{choices}</div></fieldset>'
        '<div class="row"><div><label class="label" for="filter-who">Who could supply it</label>'
        f'<select id="filter-who">{anybody}{options}</select></div>'
        '<button type="button" id="filter-all">Show all</button></div>'
        '<p class="found" id="filter-found" role="status" aria-live="polite"></p></div>'
    )


def _law(derived: Derived) -> Html:
    terms = joined(
        joined((element("dt", _LAW.get(key, key)), element("dd", f"{said}.")))
        for key, said in derived.catalogue.law.items()
    )
    return section("law", "Law and dates", element("dl", terms))


def _check(derived: Derived, bundle: bytes) -> Html:
    own = derived.catalogue
    facts = [
        ("Run", derived.evidence.run),
        ("Student", derived.evidence.model or "none"),
        ("Fields", f"{own.id}, {own.digest}"),
        ("Evidence", digest(bundle)),
    ]
    terms = joined(joined((element("dt", key), element("dd", said))) for key, said in facts)
    said = (
        "A page can claim anything, this one too. What makes it worth reading is that everything "
        "above follows from the evidence inside it, by a program that anyone can run and read:"
    )
    commands = Html(
        '<pre tabindex="0">fedkd report verify index.html --policy POLICIES\n'
        "python fedkd-verify.pyz report index.html --policy POLICIES</pre>"
    )
    more = (
        "It checks signatures, roots and bodies, makes every sentence, status and picture anew, "
        "and compares this file with what it made, byte by byte."
    )
    quorum = (
        "Without --policy no quorum is checked: keys and cosigners are then those that came with "
        "this page, which shows only that it fits itself, and whoever writes it anew can leave "
        "them out. Bring a policy of your own, with the parties' keys and how many of them have "
        "to have cosigned."
    )
    return section(
        "check", "How to check this page", element("p", said), commands, element("p", more),
        element("p", quorum), element("dl", terms),
    )  # fmt: skip


def _footer(derived: Derived) -> Html:
    line = f"{NOT_FOR_FILING}. " if derived.simulation else ""
    said = f"{line}{derived.catalogue.law.get('caveat', '')}."
    return element("footer", element("p", words(said)))
