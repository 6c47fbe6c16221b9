"""Says what each field of a message may hold: a name means the same in every message."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from fedkd.wire.frames import Malformed

MOST_TEXT = 256
MOST_SIGNATURE = 4096
MOST_COUNT = 2**53 - 1  # RFC 8785 takes JSON's numbers as doubles
MOST_NUMBER = 1e6
MOST_THRESHOLDS = 5
NOISES = ("geometric", "discrete_gaussian", "none")
"""What lies on counts: exact two-sided geometric or discrete Gaussian noise, or nothing."""
SITE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?")
RUN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_fields(value: Any) -> None:
    """Holds each field of a message against what its name means, in every message the same."""
    for name in value.__dataclass_fields__:
        if name in _CHECKS:
            _CHECKS[name](getattr(value, name))


def _check_text(value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_TEXT or not value.isprintable():
        raise Malformed("a text that is missing, too long or not printable")


def _check_site(value: Any) -> None:
    # a site's name names a folder: no separator, no leading dot, no letters that look alike
    if not isinstance(value, str) or not SITE.fullmatch(value):
        raise Malformed("a site's name that is not 1 to 64 of A-Z a-z 0-9 space . _ -")


def _check_run(value: Any) -> None:
    # a run's name names a folder at every site
    if not isinstance(value, str) or not RUN.fullmatch(value):
        raise Malformed("a run's name that is not 1 to 64 of A-Z a-z 0-9 -")


def _check_count(value: Any) -> None:
    if type(value) is not int or not 0 <= value <= MOST_COUNT:
        raise Malformed("a count that is not a whole number")


def _check_batch(value: Any) -> None:
    _check_count(value)
    if value < 1:
        raise Malformed("a batch of nothing, or no floor")


def _check_number(value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Malformed("a number that is none")
    if not 0 <= value <= MOST_NUMBER:  # NaN neither
        raise Malformed("a number that is negative, too large or not finite")


def _check_temperature(value: Any) -> None:
    _check_number(value)
    if value <= 0:
        raise Malformed("a temperature that is not positive")


def _check_flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise Malformed("a flag that is none")


def _check_positive(value: Any) -> None:
    _check_number(value)
    if value <= 0:
        raise Malformed("a number that is not positive")


def _check_thresholds(value: Any) -> None:
    if not isinstance(value, tuple) or len(value) > MOST_THRESHOLDS:
        raise Malformed("thresholds that are no list, or too many")
    if not all(isinstance(one, float) and 0 < one < 1 for one in value):  # NaN neither
        raise Malformed("a threshold outside (0, 1)")
    if any(after <= before for before, after in pairwise(value)):
        raise Malformed("thresholds that do not rise")


def _check_group(value: Any) -> None:
    if value is not None:
        _check_text(value)


def _check_noise(value: Any) -> None:
    if value not in NOISES:
        raise Malformed("a kind of noise that is not in the list")


def _check_signature(value: Any) -> None:
    # a signed note has lines, and an em dash before each signature
    if not isinstance(value, str) or not 0 < len(value) <= MOST_SIGNATURE:
        raise Malformed("a signature that is missing or too long")
    if not all(line.isprintable() for line in value.split("\n")):
        raise Malformed("a signature that is not printable")


def check_digest(value: Any) -> None:
    """Raises `Malformed` unless `value` is spelt like a digest."""
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise Malformed("a digest that is none")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "run": _check_run,
    "site": _check_site,
    "software": _check_text,
    "round": _check_count,
    "size": _check_count,
    "closing": _check_flag,
    "question": check_digest,
    "about": check_digest,
    "codec": _check_text,
    "local_epochs": _check_count,
    "lesson_epochs": _check_count,
    "batch": _check_batch,
    "loss": _check_text,
    "loss_weight": _check_number,
    "temperature": _check_temperature,
    "model": check_digest,
    "thresholds": _check_thresholds,
    "group": _check_group,
    "epsilon": _check_positive,
    "noise": _check_noise,
    "scale": _check_number,
    "floor": _check_batch,
    "signature": _check_signature,
    "proposal": check_digest,
}
