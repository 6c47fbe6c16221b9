"""Draws what a reader wants to know in a minute: data, privacy, quality, and what is open."""

from typing import Final

from fedkd.audit.verify.agreement import SERVER
from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.glance import (
    DataSet,
    Privacy,
    data_sets,
    evaluation,
    mechanisms,
    privacy,
    refusals,
    releases,
    setting,
    settings,
)
from fedkd.report.verify.heading import names, not_cosigned, unsupported
from fedkd.report.verify.page_fields import role_id, roles
from fedkd.report.verify.page_parts import (
    Cell,
    Html,
    Table,
    badge,
    element,
    joined,
    link,
    section,
    table,
    to_entries,
    to_entry,
)
from fedkd.report.verify.picture_charts import told, told_epsilon, told_interval
from fedkd.report.verify.picture_quality import in_short, not_measured
from fedkd.report.verify.values import NOT_STATED, RELATIONS

_SHOWN: Final = 8
_CARD: Final = ("name", "version", "modality", "licence", "legal_basis", "origin")


def minute(derived: Derived) -> Html:
    """The box at the top."""
    quality = (
        _part("What left the hospital, and what was refused", _left(derived))
        if derived.evidence.alone
        else _part("How good the models are", _quality(derived))
    )
    return section(
        "minute", "In one minute",
        _part("What data went in", _data(derived)),
        _part("What privacy was spent", _privacy(derived)),
        quality,
        _part("What a person still has to supply", _open(derived)),
        _part("What stands behind it", _behind(derived)),
    )  # fmt: skip


def _part(heading: str, inside: Html) -> Html:
    return element("div", element("h3", heading), inside, class_="part")


def _mark(derived: Derived, party: str) -> Html:
    return (
        element("strong", unsupported(derived, party)) if unsupported(derived, party) else Html("")
    )


def _more(derived: Derived, *links: tuple[str, str]) -> Html:
    """Links to where more of it stands; a hospital's own paper has not all fields."""
    gone = {field.id for field in derived.elsewhere}
    shown = joined((link(to, text) for to, text in links if to not in gone), ", ")
    return element("p", "More: ", shown, class_="more")


def grouped(derived: Derived) -> list[tuple[DataSet, list[DataSet]]]:
    """Training data by what their cards say: the first of each group, and all of it."""
    groups: dict[tuple[str, ...], list[DataSet]] = {}
    for one in data_sets(derived.evidence):
        if one.role == "training":
            groups.setdefault(tuple(one.card[key] for key in _CARD), []).append(one)
    return [(group[0], group) for group in groups.values()]


def _data(derived: Derived) -> Html:
    parts: list[Html] = []
    for first, group in grouped(derived):
        card = first.card
        facts = [
            ("Licence", card["licence"]),
            ("Legal basis", card["legal_basis"]),
            ("Origin", card["origin"]),
        ]
        terms = joined(joined((element("dt", name), element("dd", said))) for name, said in facts)
        held = [
            joined(
                (
                    f"{one.entry.party}: {one.size or 'size not stated'} (",
                    to_entry(one.entry),
                    ")",
                    _mark(derived, one.entry.party),
                )
            )
            for one in group[:_SHOWN]
        ]
        if len(group) > _SHOWN:
            held.append(Html(f"and {len(group) - _SHOWN} more hospitals"))
        named = joined(
            (element("strong", card["name"]), f", version {card['version']}: {card['modality']}. ",
             badge("RECORDED"), " as the hospitals' cards say")
        )  # fmt: skip
        parts += [element("p", named), element("dl", terms)]
        parts.append(element("ul", *(element("li", one) for one in held)))
    if not parts:
        parts.append(element("p", "No training data are registered in these logs."))
    others = [one for one in data_sets(derived.evidence) if one.role in ("test", "queries")]
    for one in others:
        text = "Models were examined on" if one.role == "test" else "The questions were drawn from"
        licence = one.card["licence"]
        said = f"{text} {one.id}: {one.size or 'size not stated'}, licence {licence} ("
        parts.append(element("p", joined((said, to_entry(one.entry), ")"))))
    generated = derived.evidence.told("synthetic.generated")
    if generated:
        times = "once" if len(generated) == 1 else f"{len(generated)} times"
        said = f"The questions were generated, not drawn from records: {times} ("
        parts.append(element("p", joined((said, to_entries(generated), ")"))))
    parts.append(
        _more(
            derived,
            ("a4.2d.datasets", "data sets"),
            ("g9.basis", "legal basis"),
            ("a4.2d.provenance", "where they came from"),
        )
    )
    return joined(parts)


def _privacy(derived: Derived) -> Html:
    found = privacy(derived.evidence)
    if not found:
        return element("p", "No budget was opened in these logs: nothing is known of privacy.")
    parts: list[Html] = []
    open_ones = [one.party for one in found if one.open]
    if open_ones:
        where = names(open_ones, derived.evidence.sites)
        wrong = element("strong", "NOT PRIVATE")
        said = f" at {where}: nothing bounds what answers tell about a patient."
        parts.append(element("p", wrong, said, class_="doubt"))
    used = sorted({name for one in found for name in mechanisms(derived.evidence, one.party)})
    parts.append(element("p", f"Mechanism: {', '.join(used) or 'none was used'}."))
    broken = {one.party for one in found if unsupported(derived, one.party)}
    if broken:
        said = f" at {names(sorted(broken), derived.evidence.sites)}: the log does not hold."
        parts.append(element("p", element("strong", "NOT SUPPORTED"), said, class_="doubt"))
    if kept := [one.party for one in found if one.withheld and one.party not in broken]:
        where = names(kept, derived.evidence.sites)
        parts.append(
            element("p", badge("WITHHELD"), f" by {where}: what was spent is kept at home.")
        )
    closed = {one.party for one in found if one.open or one.withheld}
    limited = [one for one in found if one.party not in closed | broken]
    if limited:
        items = [element("li", _spent(one)) for one in limited[:_SHOWN]]
        if len(limited) > _SHOWN:
            left = f"and {len(limited) - _SHOWN} more, "
            items.append(element("li", left, link("privacy", "in the table")))
        parts += [element("ul", *items), element("p", _shared(limited))]
        said = (
            "Epsilon bounds, for each patient, how much more likely any answer becomes through "
            "that patient's records: by a factor of at most e to the epsilon, except with "
            "probability delta. It holds against whoever sees the answers, the server and other "
            "hospitals among them; the hospital itself has to be trusted."
        )
        parts.append(element("p", said, class_="note"))
    if rehearsed := [one.party for one in limited if one.rehearsed]:
        where = names(rehearsed, derived.evidence.sites)
        said = f" at {where}: a rehearsal's noise comes from its seed."
        parts.append(element("p", element("strong", "NOT PRIVATE IN FACT"), said, class_="doubt"))
    parts.append(
        _more(
            derived,
            ("a4.2d.training_method", "mechanism"),
            ("gedpb.anonymity", "what it does not show"),
            ("privacy", "by round"),
        )
    )
    return joined(parts)


def _spent(one: Privacy) -> Html:
    said = f"epsilon {told_epsilon(one.spent, one.why)} of {told_epsilon(one.budget)} allowed"
    places = (one.entry, *one.charges)
    return joined((element("strong", one.party), f": {said} (", to_entries(places, 2), ")"))


def _shared(found: list[Privacy]) -> str:
    """What the numbers mean, once for all hospitals where it is the same."""
    kinds = {
        tuple(one.says(key) for key in ("delta", "unit", "relation", "filter")) for one in found
    }
    if len(kinds) > 1:
        return "Delta, unit of privacy, neighbouring relation and filter differ: see the table."
    ((delta, unit, relation, filter),) = kinds
    near = RELATIONS.get(relation, relation)
    return (
        f"Delta {delta}; unit of privacy: {unit}; neighbouring data: {near}; "
        f"added up by filter {filter}, over all runs of a hospital."
    )


def _quality(derived: Derived) -> Html:
    found = evaluation(derived.evidence)
    if found is None:
        return element("p", "Not measured: no examination of this student is in the logs.")
    student = found.student
    accuracy = student.get("accuracy")
    said = f": accuracy {told(accuracy)}"
    interval = found.interval(accuracy)
    if interval is not None:
        said += f" (95 % interval {told_interval(interval)}, {interval.of:,} test records)"
    said += f", AUROC {told(student.get('auroc'))}, calibration error {told(student.get('ece'))}"
    measured = joined((f". Measured on {found.on} (", to_entry(found.entry), ")."))
    parts = [element("p", element("strong", "The student"), said, measured, _mark(derived, SERVER))]
    parts += _device(derived)
    rows: list[tuple[Cell, ...]] = []
    for site, model, has in found.clients[:_SHOWN]:
        now, alone = has.get("accuracy"), has.get("local_accuracy")
        shown = f"{told(now)} ({told_interval(found.interval(now))})"
        rows.append((f"{site} ({model})", shown, told(alone), told(has.get("auroc"))))
    if rows:
        heads = ("Hospital's model", "Accuracy (95 % interval)", "Trained alone", "AUROC")
        parts.append(table(Table("Each hospital's own model, on the same test set", heads, rows)))
    if len(found.clients) > _SHOWN:
        said = f"and {len(found.clients) - _SHOWN} more, "
        parts.append(element("p", said, link("accuracy", "in the table")))
    charts = [("shares", "sensitivity and specificity")] if in_short(derived) else []
    parts.append(
        _more(
            derived,
            ("accuracy", "chart"),
            *charts,
            ("a4.2g.metrics", "all figures"),
            ("a4.3.groups", "by hospital and by group"),
        )
    )
    return joined(parts)


def _left(derived: Derived) -> Html:
    parts: list[Html] = []
    for what, found in (
        ("Let out", releases(derived.evidence)),
        ("Refused", refusals(derived.evidence)),
    ):
        parts.append(element("p", f"{what}: {len(found):,}"))
        shown = [joined((f"{said} (", to_entry(one), ")")) for one, said in found[-_SHOWN:]]
        shown += [element("span", f"and {len(found) - _SHOWN:,} before")][: len(found) > _SHOWN]
        parts += [element("ul", *(element("li", one) for one in shown))] if shown else []
    every = (("g35.7a.description", "all that left"), ("g35.7d.measures", "all refusals"))
    return joined((*parts, _more(derived, *every)))


def _device(derived: Derived) -> list[Html]:
    """What a device's file asks for: of all together, and at hospitals that took no part."""
    shown = in_short(derived)
    parts = [] if shown is None else [table(shown)]
    missing = [element("li", badge("MISSING"), f" {text}") for text in not_measured(derived)]
    return [*parts, element("ul", *missing)] if missing else parts


def _open(derived: Derived) -> Html:
    items = []
    for role, answers in roles(derived).items():
        asked = [one for one in answers if not one.field.automatic]
        measured = len(answers) - len(asked)
        kinds = [f"{len(asked)} to state and sign"] if asked else []
        kinds += [f"{measured} to measure, record or disclose"] if measured else []
        named = element("strong", role.capitalize())
        first = asked[0] if asked else answers[0]
        said = f": {' and '.join(kinds)}; first "
        of = link(first.field.id, first.field.requirement)
        items.append(element("li", link(role_id(role), named), said, of, "."))
    if not items:
        return element("p", "Nothing is open.")
    said = "Most of what the law asks for only people can supply."
    if derived.simulation:
        said += " In this simulation legal points stay MISSING, whatever anybody says."
    return joined((element("ul", *items), element("p", said, class_="note")))


def _behind(derived: Derived) -> Html:
    books = derived.evidence.books
    wrong = sorted(party for party, book in books.items() if book.log is None)
    count = sum(len(book.entries) for book in books.values())
    parts = [f"{len(books)} {'log' if len(books) == 1 else 'logs'} with {count:,} entries"]
    entry, config = settings(derived.evidence)
    if entry is not None:
        chosen = [
            f"{name} {said}"
            for name in ("data", "partition", "query", "aggregate", "mechanism")
            if (said := setting(config, f"choices/{name}")) != NOT_STATED
        ]
        rounds = setting(config, "rounds")
        parts.append(
            f"a run of {rounds} round{'' if rounds == '1' else 's'} with {', '.join(chosen)}"
        )
    said = "; ".join(parts) + ". "
    if wrong:
        failed = element("strong", f"The logs of {names(wrong)} DO NOT HOLD.")
        state = joined((failed, " Statements that lean on them are marked."))
    else:
        state = Html("When this page was drawn every log held: signatures, roots and bodies fit.")
    where = joined((" Whoever doubts it can ", link("check", "check this page"), "."))
    parts = [element("p", said, state, where)]
    if late := not_cosigned(derived):
        items = [element("li", f"{line}.") for line in late[:_SHOWN]]
        items += [element("li", f"and {len(late) - _SHOWN} more")] if len(late) > _SHOWN else []
        parts += [element("p", "Not confirmed by others:"), element("ul", *items)]
    return joined(parts)
