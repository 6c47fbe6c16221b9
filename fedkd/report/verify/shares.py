"""How good a version is, in shares that a device's file asks for, computed from logged counts.

Sensitivity, specificity and predictive values at the threshold of the released version: of all
places together, at each hospital, in each group, and at hospitals that took no part. Exact counts
get the interval of Wilson (1927, Probable inference, the law of succession, and statistical
inference) at 95 %; noised counts stay at home, and their shares come with the interval that was
logged, which allows for the noise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeGuard

from fedkd.audit.verify.agreement import SERVER
from fedkd.report.verify.evidence import Evidence, Told

EVERYWHERE: Final = "all"
USUAL: Final = 0.5
"""The threshold that is shown where no version is released yet."""
NAMES: Final[Mapping[str, str]] = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "positive_predictive_value": "PPV",
    "negative_predictive_value": "NPV",
    "accuracy": "accuracy",
}
WILSON: Final = "95 %, Wilson (1927), each patient counted once"
NOISED: Final = "95 %, as logged, for chance, noise and withheld counts together"
_CLASS: Final = "class "
NOT_RELEASED: Final = "no version is released"
_SLACK: Final = 1e-6
"""More than a mean in the precision of 32 bits may lie beyond its bin."""
_Z: Final = 1.959964
"""The normal quantile of 0.975."""


class Interval(NamedTuple):
    """The 95 % interval of a share, after Wilson (1927), and the number of records behind it."""

    low: float
    high: float
    of: int


class Share(NamedTuple):
    """A share with its 95 % interval; `of` is None where noise lies on the counts."""

    value: float | None
    low: float
    high: float
    part: int | None = None
    of: int | None = None

    def told(self) -> str:
        """In words: "0.812 (0.745 to 0.865; 120 of 148)"."""
        behind = "" if self.of is None else f"; {self.part:,} of {self.of:,}"
        if self.value is None:
            return "not defined (nobody is counted)" if self.of == 0 else "not known"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}{behind})"


@dataclass(frozen=True, slots=True)
class Row:
    """What one table of one evaluation says at the threshold in question, of one place and group.

    `took_part` is None where all places are together. `at` names the threshold, or the class that
    is held against the others.
    """

    entry: Told
    data: str
    where: str
    took_part: bool | None
    group: str
    column: str
    at: str
    shares: Mapping[str, Share]

    @property
    def kind(self) -> str:
        """Of which breakdown it is: whole, hospital, group, outsider."""
        if self.took_part is False:
            return "outsider"
        if self.where != EVERYWHERE:
            return "hospital"
        return "whole" if self.group == EVERYWHERE else "group"

    @property
    def in_short(self) -> bool:
        """Whether a reader in a hurry is shown it: of no single class, and of no group."""
        return self.group == EVERYWHERE and not self.at.startswith(_CLASS)

    @property
    def exact(self) -> bool:
        """Whether no noise lies on the counts."""
        return any(share.of is not None for share in self.shares.values())

    @property
    def name(self) -> str:
        """The place and the group, for a reader."""
        group = "" if self.group == EVERYWHERE else f"{self.column} {self.group}"
        place = {"whole": "All together", "group": ""}.get(self.kind, self.where)
        return ", ".join(part for part in (place, group) if part)

    @property
    def intervals(self) -> str:
        """Where the intervals come from."""
        return WILSON if self.exact else NOISED

    def told(self) -> str:
        """The shares in words."""
        return ", ".join(f"{NAMES[key]} {share.told()}" for key, share in self.shares.items())


class Released(NamedTuple):
    """The version that figures are about, or that none is released; `threshold` as it is used."""

    entry: Told | None
    model: str | None
    threshold: float | None
    version: str

    @property
    def named(self) -> str:
        """The version in words, or that there is none."""
        return NOT_RELEASED if self.entry is None else f"version {self.version}"


def wilson(share: float, of: int) -> Interval:
    """The interval of a share of `of` independent records (Wilson, 1927), at 95 %."""
    square = _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return Interval(max(0.0, middle - half), min(1.0, middle + half), of)


def share_of(part: int, rest: int) -> Share:
    """The share of `part` in both, counted exactly."""
    of = part + rest
    if of == 0:
        return Share(None, 0.0, 1.0, part, of)
    interval = wilson(part / of, of)
    return Share(part / of, interval.low, interval.high, part, of)


def released(evidence: Evidence) -> Released:
    """The version that was released last; where there is none, the newest student at 0.5."""
    for entry in reversed(evidence.told("model.released", SERVER)):
        body = entry.body or {}
        model, threshold = body.get("model"), body.get("threshold")
        if isinstance(model, str) and (threshold is None or _is_number(threshold)):
            version = body.get("version")
            return Released(entry, model, threshold, version if isinstance(version, str) else "?")
    return Released(None, evidence.model, USUAL, "")


def rows(evidence: Evidence) -> list[Row]:
    """Every row of every evaluation of the released model that was counted at its threshold."""
    what = released(evidence)
    found: list[Row] = []
    for entry in evidence.told("evaluation.done", SERVER):
        if entry.body is not None and what.model in (None, entry.body.get("model")):
            found += rows_of(evidence, entry, what)
    return found


def rows_of(evidence: Evidence, entry: Told, what: Released | None = None) -> list[Row]:
    """The rows of one evaluation; none where it counted at other thresholds, or is no such thing.

    A table of a hospital that took no part does not count where this evidence says that it did.
    """
    what = released(evidence) if what is None else what
    body = entry.body or {}
    tables = body.get("measured")
    if what.model not in (None, body.get("model")) or not isinstance(tables, list):
        return []
    found: list[Row] = []
    for table in tables:
        if not isinstance(table, Mapping) or not _is_table(table):
            continue
        if table["took_part"] is False and _took_part(evidence, table["where"]):
            continue
        column, data = body.get("group"), body.get("data")
        for at, shares in _shares(body, table, what):
            if not any(share.of != 0 for share in shares.values()):
                continue  # nobody is in this group
            found.append(
                Row(
                    entry,
                    _data_of(table, data),
                    table["where"],
                    table["took_part"],
                    table["group"],
                    column if isinstance(column, str) else "group",
                    at,
                    shares,
                )
            )
    return found


def _took_part(evidence: Evidence, site: str) -> bool:
    """Whether a hospital's log holds any training of the run, or its answers were admitted.

    One that was only asked how the student does on its patients has a log, too.
    """
    if any(entry.run in (None, evidence.run) for entry in evidence.told("train.local", site)):
        return True
    for entry in evidence.told("answers.admitted", SERVER):
        answers = (entry.body or {}).get("answers")
        if entry.body is None or (isinstance(answers, Mapping) and site in answers):
            return True
    return False


def _data_of(table: Mapping[str, Any], data: Any) -> str:
    """What a table was counted on: a hospital that is asked counts its own patients alone."""
    if table["took_part"] is True or ("figures" in table and table["where"] != EVERYWHERE):
        return "its own held-out patients"
    return data if isinstance(data, str) else "data that are not named"


def _is_table(table: Mapping[str, Any]) -> bool:
    named = isinstance(table.get("where"), str) and isinstance(table.get("group"), str)
    return named and table.get("took_part", 0) in (None, True, False)


def _shares(
    body: Mapping[str, Any], table: Mapping[str, Any], what: Released
) -> Iterator[tuple[str, Mapping[str, Share]]]:
    thresholds, classes = body.get("thresholds"), body.get("classes")
    if not isinstance(thresholds, list) or not isinstance(classes, list):
        return
    whole = table["where"] == EVERYWHERE == table["group"]
    if "cells" in table:
        cells = _cells(table["cells"], len(thresholds) + 1 if thresholds else len(classes))
        if cells is not None:
            yield from _exact(cells, thresholds, classes, what, whole)
    elif isinstance(table.get("figures"), Mapping):
        yield from _noised(table["figures"], what, whole)


def _exact(
    cells: Sequence[Sequence[int]],
    thresholds: Sequence[Any],
    classes: Sequence[Any],
    what: Released,
    whole: bool,
) -> Iterator[tuple[str, Mapping[str, Share]]]:
    if thresholds:
        if not _is_number(what.threshold) or what.threshold not in thresholds:
            return
        if len(cells[0]) != 2:
            return
        place = thresholds.index(what.threshold)
        below, above = cells[: place + 1], cells[place + 1 :]
        tn, fn = (sum(row[true] for row in below) for true in (0, 1))
        fp, tp = (sum(row[true] for row in above) for true in (0, 1))
        yield f"threshold {what.threshold:g}", _four(tp, fp, tn, fn)
        return
    if len(cells) != len(cells[0]):
        return
    total, right = sum(map(sum, cells)), sum(row[said] for said, row in enumerate(cells))
    yield "the most probable class", {"accuracy": share_of(right, total - right)}
    for place, name in enumerate(classes if whole else ()):
        said, true = sum(cells[place]), sum(row[place] for row in cells)
        tp = cells[place][place]
        yield (
            f"{_CLASS}{name} against the others",
            _four(tp, said - tp, total - said - true + tp, true - tp),
        )


def _four(tp: int, fp: int, tn: int, fn: int) -> Mapping[str, Share]:
    return {
        "sensitivity": share_of(tp, fn),
        "specificity": share_of(tn, fp),
        "positive_predictive_value": share_of(tp, fp),
        "negative_predictive_value": share_of(tn, fn),
    }


def _noised(
    figures: Mapping[str, Any], what: Released, whole: bool
) -> Iterator[tuple[str, Mapping[str, Share]]]:
    listed = figures.get("thresholds")
    if isinstance(listed, list):
        for row in listed:
            same = isinstance(row, Mapping) and row.get("threshold") == what.threshold
            if same and _is_number(what.threshold):
                yield f"threshold {what.threshold:g}", _logged(row, list(NAMES)[:4])
        return
    yield "the most probable class", _logged(figures, ["accuracy"])
    classes = figures.get("classes")
    for row in classes if whole and isinstance(classes, list) else ():
        if isinstance(row, Mapping):
            yield f"{_CLASS}{row.get('class')} against the others", _logged(row, list(NAMES)[:4])


def _logged(row: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Share]:
    found: dict[str, Share] = {}
    for name in names:
        told = row.get(name)
        if not isinstance(told, Mapping):
            continue
        value, low, high = (told.get(key) for key in ("value", "low", "high"))
        if _is_number(low) and _is_number(high) and (value is None or _is_number(value)):
            found[name] = Share(value, float(low), float(high))
    return found


def _cells(told: Any, answers: int) -> list[list[int]] | None:
    """Counts [B, C] with `answers` rows; None for any other shape."""
    if not isinstance(told, list) or len(told) != answers or not told:
        return None
    width = len(told[0]) if isinstance(told[0], list) else 0
    for row in told:
        if not isinstance(row, list) or len(row) != width or not width:
            return None
        if any(type(count) is not int or count < 0 for count in row):
            return None
    return told


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)


# Calibration -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Bin:
    """Answers whose confidence lies between two bounds: how many, how many right, their mean."""

    low: float
    high: float
    count: int
    right: int
    confidence: float


def bins(body: Mapping[str, Any] | None) -> list[Bin]:
    """The bins that an evaluation logged, by confidence; none where they have another shape."""
    told = (body or {}).get("reliability")
    found: list[Bin] = []
    for one in told if isinstance(told, list) else ():
        made = _bin(one)
        if made is None:
            return []
        found.append(made)
    return sorted(found)


def _bin(told: Any) -> Bin | None:
    if not isinstance(told, Mapping):
        return None
    low, high, confidence = (told.get(key) for key in ("low", "high", "confidence"))
    count, right = told.get("count"), told.get("right")
    if not (_is_number(low) and _is_number(high) and _is_number(confidence)):
        return None
    if type(count) is not int or type(right) is not int or not 0 <= right <= count or not count:
        return None
    made = Bin(float(low), float(high), count, right, float(confidence))
    return made if 0 <= made.low <= made.confidence <= made.high + _SLACK <= 1.1 else None


def error_of(found: Sequence[Bin]) -> float:
    """The expected calibration error of these bins (Guo and others, 2017, equation 5)."""
    total = sum(one.count for one in found)
    return sum(abs(one.right / one.count - one.confidence) * one.count for one in found) / total
