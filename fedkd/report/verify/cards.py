"""Draws a model card, and a data sheet for each data set, out of what was derived.

The card's headings are those of Mitchell et al. (2019, arXiv:1810.03993), its header that of
model hubs; a sheet's headings are those of Gebru et al. (2018, arXiv:1803.09010). What no log and
no person says is said to be missing, with who could supply it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedkd.audit.verify.agreement import SERVER
from fedkd.report.verify.deriving import Derived
from fedkd.report.verify.evidence import Told
from fedkd.report.verify.glance import DataSet, data_sets, evaluation, setting, settings
from fedkd.report.verify.heading import NOT_FOR_FILING, standing
from fedkd.report.verify.markdown import cautions, minute, place, statement
from fedkd.report.verify.plain import marked_down as text
from fedkd.report.verify.plain import seen
from fedkd.report.verify.values import NOT_STATED

CARD: Final = "model-card.md"
_SLUG: Final = re.compile(r"[^a-z0-9]+")
_METRICS: Final = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "ece": "expected calibration error",
}
_MODEL: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Model details", ("a4.1a.version", "a4.1a.provider", "a4.2b.objective", "a4.1c.software")),
    ("Intended use", ("a4.1a.purpose", "a4.2b.design_choices", "a4.3.inputs")),
    ("Factors and groups", ("a4.3.groups", "a4.2g.discrimination")),
    ("Metrics", ("a4.2g.metrics", "a4.4.metric_fit", "a4.2g.procedures")),
    ("Evaluation data", ("a4.2g.test_data",)),
    ("Training data", ("a4.2d.datasets", "a4.2d.provenance")),
    ("Privacy", ("a4.2d.training_method", "gedpb.anonymity")),
    ("Ethical considerations", ("a4.3.unintended", "a4.3.oversight")),
    ("Caveats and changes", ("a4.3.capabilities", "a4.6.changes")),
)
_SHEET: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Motivation", ("a10.2b.purpose", "a10.2d")),
    ("Collection", ("a4.2d.selection", "a4.2d.labelling")),
    ("Cleaning", ("a4.2d.cleaning",)),
    ("Bias and gaps", ("a10.2f", "a10.2h", "a10.3.quality", "a10.4.setting")),
    ("Maintenance and erasure", ("g30.f.erasure",)),
)


def model_card(derived: Derived) -> str:
    """A model card in Markdown, with a metadata header in YAML."""
    lines = ["---", *_header(derived), "---", "", f"# Student of run {text(_run(derived))}", ""]
    lines += [*cautions(derived), text(standing(derived)), ""]
    lines += [f"- {name}: {text(said)}" for name, said in _facts(derived)]
    lines += ["", "## In short", "", *minute(derived)]
    for heading, ids in _MODEL:
        lines += ["", f"## {heading}", "", *_answers(derived, ids)]
    lines += ["", "Every sentence follows from entries of the logs; check the report beside this."]
    return "\n".join(lines) + "\n"


def data_sheets(derived: Derived) -> dict[str, str]:
    """A data sheet for each registered data set, by the name of its file."""
    sheets: dict[str, str] = {}
    for one in data_sets(derived.evidence):
        slug = _SLUG.sub("-", f"{one.entry.party}-{one.id}".lower()).strip("-")[:60] or "data"
        name = f"data-sheet-{slug}.md"
        if name in sheets:  # names that differ by letters which no file name has here
            name = f"data-sheet-{slug}-{len(sheets) + 1}.md"
        sheets[name] = _sheet(derived, one)
    return sheets


def _run(derived: Derived) -> str:
    return derived.evidence.run


def _header(derived: Derived) -> Iterator[str]:
    """YAML whose every text is a string of JSON: nothing in a log can begin a key of its own."""
    found = evaluation(derived.evidence)
    tags = ["federated-learning", "knowledge-distillation"]
    tags += ["simulation", "not-for-filing"] if derived.simulation else []
    yield f"model_name: {_quoted(f'Student of run {_run(derived)}')}"
    yield "license: unknown"
    yield "library_name: fedkd"
    yield f"tags: {_quoted(tags)}"
    yield f"datasets: {_quoted(sorted({one.card['name'] for one in data_sets(derived.evidence)}))}"
    if derived.simulation:
        yield f"notice: {_quoted(NOT_FOR_FILING)}"
    if found is None:
        return
    shown = {key: found.student[key] for key in _METRICS if key in found.student}
    yield f"metrics: {_quoted(list(shown))}"
    yield "model-index:"
    yield f"  - name: {_quoted(f'Student of run {_run(derived)}')}"
    yield "    results:"
    yield '      - task: {"type": "classification"}'
    yield f"        dataset: {_quoted({'name': found.on, 'type': found.on})}"
    yield "        metrics:"
    for key, value in shown.items():
        yield f"          - {_quoted({'type': key, 'name': _METRICS[key], 'value': value})}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, sort_keys=True)


def _facts(derived: Derived) -> Iterator[tuple[str, str]]:
    evidence = derived.evidence
    _, config = settings(evidence)
    yield "Digest", evidence.model or NOT_STATED
    updates = [one for one in evidence.told("student.updated", SERVER) if one.body is not None]
    kind = updates[-1].body.get("model") if updates and updates[-1].body else None
    yield "Architecture", str(kind or NOT_STATED)
    for name in ("data", "partition", "query", "aggregate", "mechanism"):
        yield name.capitalize(), setting(config, f"choices/{name}")
    yield "Rounds", setting(config, "rounds")
    yield "Seed", setting(config, "seed")


def _answers(derived: Derived, ids: tuple[str, ...]) -> Iterator[str]:
    known = {answer.field.id: answer for answer in derived.answers}
    for answer in (known[id] for id in ids if id in known):
        yield f"- **{text(answer.field.requirement)}** ({answer.status}, `{answer.field.id}`)"
        if answer.why:
            yield f"  - {text(answer.why)}"
        yield from (f"  - {statement(one)}" for one in answer.statements)


def _sheet(derived: Derived, one: DataSet) -> str:
    lines = [f"# Data sheet: {text(one.id)}", "", *cautions(derived), text(standing(derived)), ""]
    lines += [
        f"Registered by {text(one.entry.party)} ({place(one.entry)}), used as {text(one.role)}."
    ]
    lines += ["", "## Composition", ""]
    named = {"legal_basis": "legal basis"}
    lines += [
        f"- {named.get(key, key).capitalize()}: {text(said)} (RECORDED)"
        for key, said in one.card.items()
    ]
    lines += [f"- Size: {text(one.size or NOT_STATED)}"]
    commitment = (one.entry.body or {}).get("commitment")
    if isinstance(commitment, str):
        lines += [f"- Commitment to its records, under a key of the site: {text(commitment)}"]
    lines += ["", "## What was done to it", "", *_events(derived, one)]
    for heading, ids in _SHEET:
        lines += ["", f"## {heading}", "", *_answers(derived, ids)]
    lines += ["", "Points of a whole report, which need not be about this data set alone."]
    return "\n".join(lines) + "\n"


def _events(derived: Derived, one: DataSet) -> list[str]:
    """Entries of its party and the server's that name it, in order."""
    lines = []
    for party in dict.fromkeys((SERVER, one.entry.party)):
        book = derived.evidence.books.get(party)
        for entry in book.entries if book is not None else ():
            if entry.type.startswith("data") and entry.index != one.entry.index:
                lines += _event(entry, one.id)
    return lines or ["- Nothing is logged."]


def _event(entry: Told, id: str) -> list[str]:
    if entry.body is None or not _names(entry.body, id):
        return []
    if entry.type == "dataset.registered":
        return []
    said = ", ".join(f"{key} {_plain(entry.body[key])}" for key in sorted(entry.body))
    return [f"- {entry.type} at {entry.time}: {text(said)} ({place(entry)})"]


def _names(body: Mapping[str, Any], id: str) -> bool:
    parts = body.get("parts")
    return id in (body.get("input"), body.get("id"), body.get("data"), body.get("output")) or (
        isinstance(parts, Mapping) and id in parts
    )


def _plain(value: Any) -> str:
    return seen(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
