"""The options of each comparison: their defaults, and what may be typed instead."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fedkd.knowledge import BadInput


class Option(NamedTuple):
    """One option: its default, how its text is read (`ValueError` if wrong), and that in words."""

    default: Any
    read: Callable[[str], Any]
    expected: str


def _within(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high or not math.isfinite(value):
            raise ValueError
        return value

    return read


def _whole(default: int, low: int, high: int) -> Option:
    return Option(default, _within(low, high), f"a whole number from {low} to {high}")


def _listed(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def read_all(text: str) -> list[Any]:
        values = [read(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            raise ValueError
        return values

    return read_all


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


FOLDER = Option("", str, "the folder of the data set")
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "methods": {
        "seeds": Option([0, 1, 2], _listed(_within(0, 2**32 - 1)), "seeds such as 0,1,2"),
        "fashion_mnist": FOLDER,
        "heart_disease": FOLDER,
        "cells": Option([1, 2, 3], _listed(_within(1, 3)), "cells of the table such as 1,3"),
    },
    "simulate": {
        "sites": _whole(200, 2, 10_000),
        "engine": Option("both", _one_of("both", "inprocess"), "both or inprocess"),
        # Epochs follow from the seconds, and a site takes 10,000 of them at most.
        "seconds": Option(20.0, _within(0.1, 800, float), "seconds from 0.1 to 800"),
    },
    "scale": {
        "sites": _whole(1000, 1, 1200),  # of 1,200 records
        "rounds": _whole(200, 1, 9_999),
    },
    "audit": {
        "parts": Option(
            ["append", "verify", "run"],
            _listed(_one_of("append", "verify", "run")),
            "parts such as append,verify,run",
        ),
        "appends": _whole(5_000, 1, 1_000_000),
        # Entries in a turn: enough of them to hold SQLite's own pauses.
        "block": _whole(250, 1, 1_000_000),
        "entries": _whole(100_000, 2, 10_000_000),
        # As in `simulate`: epochs follow from the seconds.
        "seconds": Option(20.0, _within(0.1, 800, float), "seconds from 0.1 to 800"),
    },
    "report": {
        "run": Option("", str, "the folder of a run; without it a fresh simulation by default"),
        "repeats": _whole(3, 1, 1_000),
    },
    "deploy": {
        "parts": Option(
            ["rounds", "memory", "nodes"],
            _listed(_one_of("rounds", "memory", "nodes")),
            "parts such as rounds,memory,nodes",
        ),
        "models": Option(
            ["trivial", "torch"],
            _listed(_one_of("trivial", "torch")),
            "models such as trivial,torch",
        ),
        "sites": _whole(4, 2, 40),
        "rounds": _whole(4, 2, 100),
        "repeats": _whole(2, 1, 100),
        "nodes": _whole(40, 2, 40),
    },
    "privacy": {
        "parts": Option(
            ["utility", "leakage", "speed"],
            _listed(_one_of("utility", "leakage", "speed")),
            "parts such as utility,leakage,speed",
        ),
        # Never those by which the recipe was chosen.
        "seeds": Option([3, 4, 5], _listed(_within(0, 2**32 - 1)), "seeds such as 3,4,5"),
        "fashion_mnist": FOLDER,
        "heart_disease": FOLDER,
        "cells": Option([1, 2, 3, 4], _listed(_within(1, 4)), "cells of the table such as 1,3"),
        "shadows": _whole(16, 16, 1_000),
        "repeats": _whole(5, 1, 1_000),
    },
}
"""By the name of the comparison."""


def options_of(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Every option of the comparison `name`; `BadInput` for a key or value that is none."""
    options = {key: option.default for key, option in OPTIONS[name].items()}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign or key not in options:
            raise BadInput(repr(text), "key=value, with a key of " + ", ".join(options))
        option = OPTIONS[name][key]
        try:
            options[key] = option.read(value)
        except ValueError:
            raise BadInput(text, f"{key}=<{option.expected}>") from None
    return options
