"""Draws what each site's patients have spent of their budget, by round."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from fedkd.privacy.claim import Claim
from fedkd.report import svg
from fedkd.report.claims import bounds, claims_of, without_claim

WIDTH, NAMES, LABELS = 760, 158, 100
LIGHT = "#9cc9e3"
TITLE = "Epsilon spent, by site and round"
MOST_BOUNDS = 3
"""Of more different budgets than these, the words stand in summary.json alone."""
NARROWEST = 20
"""A part narrower than this has no room for its round's number."""


def epsilon_spent(summary: Mapping[str, Any]) -> str:
    """A row a site: a part a round, from 0 to what is spent, and a line where the budget ends.

    Only sites with a whole claim have a bar; the claims travel inside the drawing.
    """
    claims, missing = claims_of(summary), without_claim(summary)
    rounds = (summary.get("privacy") or {}).get("spent", {})
    sites = [client["site"] for client in summary["clients"]]
    said = bounds(claims)
    if len(said) > MOST_BOUNDS:
        said = [f"{len(said)} different budgets, each with its whole claim in summary.json."]
    words = [line for one in said for line in textwrap.wrap(one, 88)]
    parts = [svg.text(24, 30, TITLE, size=17, bold=True)]
    parts += [svg.text(24, 56 + 18 * n, line, colour=svg.SOFT) for n, line in enumerate(words)]
    top, row = 84 + 18 * len(words), 26 if len(sites) <= 24 else 19
    bottom = top + row * max(len(sites), 1)
    parts += _legend(top - 22, before=any(it and it[0]["round"] == 0 for it in rounds.values()))
    marks = even_ticks(max((claim.epsilon for claim in claims.values()), default=1.0))
    left, right = NAMES + 12.0, float(WIDTH - LABELS)

    def across(epsilon: float) -> float:
        return left + min(epsilon / marks[-1], 1.0) * (right - left)

    for tick in marks:
        parts.append(svg.line(across(tick), top - 6, across(tick), bottom))
        parts.append(svg.text(across(tick), bottom + 20, f"{tick:g}", anchor="middle"))
    axis = "epsilon (for display: what is promised is the budget)"
    parts.append(svg.text((left + right) / 2, bottom + 44, axis, anchor="middle"))
    for place, site in enumerate(sites):
        y = top + row * (place + 0.5)
        size = 13 if row > 20 else 12
        name = svg.shortened(site, 19)
        parts.append(svg.text(NAMES, y + 4.5, name, anchor="end", size=size))
        if site not in claims:
            why = svg.shortened(f"no claim: {missing.get(site, 'nothing is said')}", 70)
            parts.append(svg.text(left, y + 4.5, why, size=12, colour=svg.SOFT))
            continue
        claim = claims[site]
        parts += _bar(site, rounds.get(site, []), y, row - 8, across)
        end = across(claim.epsilon)
        parts.append(svg.line(end, y - row / 2, end, y + row / 2, colour=svg.WARNING, width=2))
        label = f"{claim.spent:.2f} of {claim.epsilon:g}"
        parts.append(svg.text(right + 10, y + 4.5, label, size=size, bold=True))
    described = "; ".join(
        f"{site}: {it.spent:.3f} of {it.epsilon:g}" for site, it in claims.items()
    )
    whole = json.dumps({site: claim.to_json() for site, claim in claims.items()}, sort_keys=True)
    height = bottom + 62
    described = f"{' '.join(said)} {described}"
    return svg.drawing(WIDTH, height, TITLE, described, parts, metadata=whole)


def even_ticks(most: float, intervals: int = 6) -> list[float]:
    """Round numbers from 0 up to one that is at least `most`."""
    step = 10.0 ** math.floor(math.log10(most / intervals))
    step *= next(times for times in (1, 2, 5, 10) if most / (step * times) <= intervals)
    return [round(step * n, 12) for n in range(math.ceil(most / step - 1e-9) + 1)]


def claims_inside(claims: Mapping[str, Mapping[str, Claim]]) -> str:
    """The claims of several runs, by run and site, as a drawing carries them."""
    return json.dumps(
        {run: {site: it.to_json() for site, it in own.items()} for run, own in claims.items()},
        sort_keys=True,
    )


def _bar(
    site: str, rounds: Sequence[Mapping[str, Any]], y: float, high: float, across: Any
) -> list[str]:
    parts, start, shaded = [], 0.0, 0
    for told in rounds:
        number, end = told["round"], told["epsilon"]
        length = across(end) - across(start)
        if length <= 0:
            continue
        colour = svg.SOFT if number == 0 else (svg.BLUE, LIGHT)[shaded % 2]
        shaded += number > 0
        when = f"once round {number} was paid for" if number else "before this run"
        title = f"{site}, {when}: epsilon {end:.4g}"
        parts.append(svg.bar(across(start), y - high / 2, length, high, colour=colour, title=title))
        if number and length >= NARROWEST and high >= 14:
            ink = svg.INK if colour == LIGHT else "#ffffff"
            middle = across(start) + length / 2
            label = svg.text(middle, y + 4.5, str(number), anchor="middle", size=12, colour=ink)
            parts.append(label)
        start = end
    return parts


def _legend(y: float, *, before: bool) -> list[str]:
    entries = [("rounds, in turn", svg.BLUE), ("budget", svg.WARNING)]
    if before:
        entries.insert(0, ("before this run", svg.SOFT))
    parts, x = [], 24.0
    for name, colour in entries:
        if name == "budget":
            parts.append(svg.line(x + 6, y - 10, x + 6, y + 2, colour=colour, width=2))
        else:
            parts.append(svg.mark(x + 6, y - 4.5, "square", colour=colour))
        parts.append(svg.text(x + 18, y, name))
        x += 40 + 7.6 * len(name)
    return parts
