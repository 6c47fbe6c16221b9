"""Reads a hospital's site.yaml: what it brings to a federation, and what it accepts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit import EVENTS
from fedkd.audit.retention import NEVER
from fedkd.data import Card
from fedkd.data.mapped import DataFile, Mapped
from fedkd.data.typed_by_hand import listed, mapping_of, nearest, number, read_yaml, spelling, text
from fedkd.deploy.policy import Policy
from fedkd.knowledge import BadInput, OtherFormat

FORMAT: Final = 1
TO_FILL_IN: Final = "???"
KEYS: Final = (
    "format", "data", "columns", "label", "card", "model", "training", "mechanism", "validation",
    "seed", "population", "policy", "evaluations", "rehearsal", "retention",
)  # fmt: skip
_DATA_KEYS: Final = (
    "path", "encoding", "separator", "decimal", "thousands", "missing_values", "header", "patient",
)  # fmt: skip
_CARD_KEYS: Final = ("name", "version", "modality", "licence", "legal_basis", "origin", "citation")
_TRAINING: Final = {"learning_rate": 0.003, "weight_decay": 0.01, "steps": "records"}
_STEPS: Final = ("records", "lesson")
_MOST_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True)
class Chosen:
    """An installed part by its name, with keys that are not as its yaml says."""

    name: str
    keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SiteFile:
    """Everything in a site.yaml, its form checked; what columns there are is the founding's.

    `seed` decides which records judge the site's own model, as in a simulation, and may be given
    only where nothing is private. `retention` are the days that bodies of a type of event are kept.
    """

    data: DataFile
    columns: Mapping[str, Mapped]
    label: Mapped | None
    card: Card
    model: Chosen
    training: Mapping[str, Any]
    mechanism: Chosen
    validation: float
    seed: int | None
    population: str | None
    policy: Policy
    evaluations: Mapping[str, Any]
    rehearsal_records: int
    retention: Mapping[str, int]

    @staticmethod
    def read(path: Path) -> "SiteFile":
        """The file at `path`; `BadInput` names the wrong key and its nearest right spelling."""
        try:
            typed = read_yaml(path)
        except OSError as error:
            raise BadInput(
                f"no {path} ({error.strerror})",
                "the hospital's own file",
                f"fedkd site init {path.parent} --data FILE",
            ) from None
        given = mapping_of(typed, path.name, KEYS)
        if given.get("format") != FORMAT:
            raise OtherFormat(path.name, given.get("format"), FORMAT)
        mechanism = _chosen(given.get("mechanism", "dp_training"), "mechanism")
        seed = given.get("seed")
        if seed is not None and mechanism.name != "none":
            raise BadInput(
                f"seed: {seed} with mechanism: {mechanism.name}",
                "no seed: whoever knows one could take noise off again",
                "leave seed out; noise comes from the operating system",
            )
        return SiteFile(
            data=_data(given.get("data"), path.parent),
            columns={
                str(name): _mapped(each, f"column {name!r}")
                for name, each in _mapping(given.get("columns", {}), "columns").items()
            },
            label=None if given.get("label") is None else _mapped(given["label"], "label"),
            card=_card(given.get("card")),
            model=_chosen(given.get("model", "mlp"), "model"),
            training=_training(given.get("training", {})),
            mechanism=mechanism,
            validation=_share(given.get("validation", 0.1)),
            seed=None if seed is None else _count(seed, "seed", 0),
            population=_optional(given.get("population"), "population"),
            policy=Policy.of_file(given),
            evaluations=_evaluations(given.get("evaluations", {})),
            rehearsal_records=_rehearsal(given.get("rehearsal", {})),
            retention=_retention(given.get("retention")),
        )


def _data(given: object, beside: Path) -> DataFile:
    told = mapping_of(given if given is not None else {}, "data", _DATA_KEYS)
    if not told.get("path") or told["path"] == TO_FILL_IN:
        raise BadInput(
            "no path of data", "the file of records", "write data: {path: /srv/records.csv}"
        )
    lists: dict[str, Any] = {
        key: tuple(spelling(value, key) for value in listed(told[key], key))
        for key in ("missing_values", "header")
        if told.get(key) is not None
    }
    texts: dict[str, Any] = {
        key: _optional(told.get(key), f"{key} of data")
        for key in ("encoding", "separator", "decimal", "thousands", "patient")
    }
    path = Path(text(told["path"], "path of data")).expanduser()
    return DataFile(
        path if path.is_absolute() else beside / path,
        **texts,
        **lists,
    )


def _mapped(given: object, where: str) -> Mapped:
    told = mapping_of(given, where, ("column", "unit", "factor", "offset", "codes"))
    column = _optional(told.get("column"), f"column of {where}")
    if column == TO_FILL_IN or "column" not in told:
        raise BadInput(
            f"no column of the file for {where}",
            "its name in the file, or null where the hospital does not have it",
            f"write its name in the place of {TO_FILL_IN}",
        )
    factor = number(told.get("factor", 1.0), f"factor of {where}")
    if factor == 0:
        raise BadInput(f"factor 0 of {where}", "what a number of the file is multiplied by")
    codes = told.get("codes")
    return Mapped(
        column=column,
        unit=text(told.get("unit", ""), f"unit of {where}"),
        factor=factor,
        offset=number(told.get("offset", 0.0), f"offset of {where}"),
        codes=None
        if not codes
        else {
            spelling(raw, f"codes of {where}"): spelling(meant, f"codes of {where}")
            for raw, meant in _mapping(codes, f"codes of {where}").items()
        },
    )


def _card(given: object) -> Card:
    told = mapping_of(given if given is not None else {}, "card", _CARD_KEYS)
    said = {key: text(value, f"{key} of card") for key, value in told.items()}
    for key in _CARD_KEYS[:-1]:
        if not said.get(key, "").strip() or said[key] == TO_FILL_IN:
            raise BadInput(
                f"no {key} in the card",
                "what a person states of these records; it goes into the log",
                f"fill in card: {key}:",
            )
    return Card(**said)


def _chosen(given: object, where: str) -> Chosen:
    if isinstance(given, str):
        return Chosen(given, {})
    told = _mapping(given, where)
    name = text(told.pop("name", None), f"name of {where}")
    if "_target_" in told:
        raise BadInput(f"_target_ of {where}", "the name of an installed part, and its keys")
    return Chosen(name, told)


def _training(given: object) -> dict[str, Any]:
    told = mapping_of(given, "training", _TRAINING)
    for key in ("learning_rate", "weight_decay"):
        if key in told and number(told[key], f"{key} of training") < 0:
            raise BadInput(f"{key} {told[key]} of training", "a number from 0")
    steps = told.get("steps", "records")
    if steps not in _STEPS:
        raise BadInput(
            f"steps {steps!r} of training", " or ".join(_STEPS), nearest(str(steps), _STEPS)
        )
    return {**_TRAINING, **told}


def _rehearsal(given: object) -> int:
    told = mapping_of(given, "rehearsal", ("records",))
    return _count(told.get("records", 200), "records of rehearsal", 10)


def _evaluations(given: object) -> dict[str, Any]:
    told = mapping_of(given, "evaluations", ("models", "most_epsilon", "floor", "groups"))
    return {
        "models": [text(one, "models") for one in listed(told.get("models", ["mlp"]), "models")],
        "most_epsilon": number(told.get("most_epsilon", 4.0), "most_epsilon of evaluations"),
        "floor": _count(told.get("floor", 5), "floor of evaluations", 1),
        "groups": [text(one, "groups") for one in listed(told.get("groups", []), "groups")],
    }


def _retention(given: object) -> dict[str, int]:
    """Days by type of event; a type whose bodies are needed as long as the log is refused."""
    erasable = sorted(EVENTS - NEVER.keys())
    told = {} if given is None else _mapping(given, "retention")
    for type, days in told.items():
        if type in NEVER:
            raise BadInput(
                f"{type} in retention",
                f"types whose bodies may be erased: {', '.join(erasable)}",
                f"take it out; it is kept as long as the log: {NEVER[type]}",
            )
        if type not in erasable:
            raise BadInput(
                f"{type!r} in retention",
                f"types of events: {', '.join(erasable)}",
                nearest(str(type), erasable) or "fedkd audit show says which a log has",
            )
        if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= _MOST_DAYS:
            raise BadInput(
                f"{days!r} as retention of {type}",
                f"whole days, from 1 to {_MOST_DAYS}",
                f"write {type}: 365 for a year, or leave it out: then nothing of it is erased",
            )
    return told


def _mapping(given: object, where: str) -> dict[Any, Any]:
    if not isinstance(given, Mapping):
        raise BadInput(f"{given!r} as {where}", "a mapping of names")
    return dict(given)


def _optional(given: object, where: str) -> str | None:
    return None if given is None else text(given, where)


def _count(given: object, where: str, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise BadInput(f"{given!r} as {where}", f"a whole number from {least}")
    return given


def _share(given: object) -> float:
    share = number(given, "validation")
    if not 0 <= share < 1:
        raise BadInput(f"validation {share}", "a share from 0 to below 1")
    return share
