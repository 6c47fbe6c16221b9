"""Guesses in which other unit a column is written, by the factors of clinical chemistry.

A hint for a person, and nothing else: no value is ever converted by it. SI and conventional units
with their factors: Iverson et al., AMA Manual of Style, 11th edition (2020), 17.5, whose table is
also in JAMA's instructions for authors and in Rowlett, How Many? A Dictionary of Units of
Measurement, SI Units for Clinical Data.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

ENOUGH: Final = 0.9
"""Share of values that have to lie in the declared range once converted."""
LEAST_GAIN: Final = 0.3
"""By how much that share has to be above that of the values as they are."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured quantity in two units: `conventional` times `factor` plus `offset` is `si`.

    `names` are beginnings of words that columns are called by.
    """

    names: tuple[str, ...]
    conventional: str
    si: str
    factor: float
    offset: float = 0.0


QUANTITIES: Final = (
    Quantity(("chol", "ldl", "hdl"), "mg/dl", "mmol/l", 0.02586),
    Quantity(("trig", "tg"), "mg/dl", "mmol/l", 0.01129),
    Quantity(("gluc", "gluk", "glyc", "bz", "fbs", "sugar"), "mg/dl", "mmol/l", 0.05551),
    Quantity(("creat", "krea", "crea", "scr"), "mg/dl", "µmol/l", 88.4),
    Quantity(("bun", "urea nitrogen"), "mg/dl", "mmol/l", 0.357),
    Quantity(("urea", "harnstoff"), "mg/dl", "mmol/l", 0.1665),
    Quantity(("uric", "urate", "harnsä", "harnsa"), "mg/dl", "µmol/l", 59.48),
    Quantity(("bili",), "mg/dl", "µmol/l", 17.1),
    Quantity(("alb", "protein", "total protein"), "g/dl", "g/l", 10.0),
    Quantity(("hb", "hgb", "hemo", "haemo", "hämo"), "g/dl", "g/l", 10.0),
    Quantity(("hb", "hgb", "hemo", "haemo", "hämo"), "g/dl", "mmol/l", 0.6206),
    Quantity(("hba1c", "a1c"), "%", "mmol/mol", 10.93, -23.5),
    Quantity(("calc", "ca"), "mg/dl", "mmol/l", 0.2495),
    Quantity(("magn", "mg"), "mg/dl", "mmol/l", 0.4114),
    Quantity(("phos",), "mg/dl", "mmol/l", 0.3229),
    Quantity(("lact", "lakt"), "mg/dl", "mmol/l", 0.111),
    Quantity(("iron", "fe", "eisen"), "µg/dl", "µmol/l", 0.179),
    Quantity(("ammon",), "µg/dl", "µmol/l", 0.587),
    Quantity(("crp", "c-reactive"), "mg/dl", "mg/l", 10.0),
    Quantity(("trop",), "ng/ml", "ng/l", 1000.0),
    Quantity(("cort",), "µg/dl", "nmol/l", 27.59),
    Quantity(("t4", "thyroxin"), "µg/dl", "nmol/l", 12.87),
    Quantity(("vitamin d", "vitd", "25"), "ng/ml", "nmol/l", 2.496),
    Quantity(("b12", "cobal"), "pg/ml", "pmol/l", 0.7378),
    Quantity(("folat", "fols"), "ng/ml", "nmol/l", 2.266),
    Quantity(("temp", "fever"), "°F", "°C", 5 / 9, -160 / 9),
    Quantity(("pco2", "pao2", "po2", "paco2"), "mmHg", "kPa", 0.1333),
    Quantity(("bp", "rr", "trestbps", "press", "sys", "dia"), "mmHg", "kPa", 0.1333),
    Quantity(("weight", "wt", "gewicht"), "lb", "kg", 0.45359),
    Quantity(("height", "ht", "größe", "groesse", "length"), "in", "cm", 2.54),
    Quantity(("wbc", "leuk", "plat", "thromb", "plt"), "1/µl", "10^9/l", 0.001),
)  # fmt: skip
PREFIXES: Final = (1000.0, 100.0, 10.0)
"""Factors of a forgotten prefix, of m for cm, or of a lost decimal mark."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A unit in which the values would make sense.

    Times `factor`, plus `offset`, they are in the declared one, and `share` of them lie inside.
    """

    unit: str
    factor: float
    offset: float
    share: float

    @property
    def rule(self) -> str:
        """As site.yaml writes it, to four digits."""
        tail = f", offset: {self.offset:.4g}" if self.offset else ""
        return f"unit: {self.unit}, factor: {self.factor:.4g}{tail}"


def guess(
    name: str, unit: str, low: float, high: float, values: Sequence[tuple[float, int]]
) -> Guess | None:
    """The likeliest other unit of column `name`, declared in `unit` from `low` to `high`.

    `values` are distinct numbers with how often each occurs. None where nothing fits clearly
    better than the values as they are; named quantities go before mere powers of ten.
    """
    plain = _inside(values, low, high, 1.0, 0.0)
    for candidates in (_known(name, unit), _prefixes(unit)):
        found = [
            Guess(other, factor, offset, _inside(values, low, high, factor, offset))
            for other, factor, offset in candidates
        ]
        likely = [one for one in found if one.share >= max(ENOUGH, plain + LEAST_GAIN)]
        if likely:
            return max(likely, key=lambda one: one.share)
    return None


def _known(name: str, unit: str) -> Iterator[tuple[str, float, float]]:
    spelt = _spelt(unit)
    for quantity in QUANTITIES:
        if not _is_called(name, quantity.names):
            continue
        factor, offset = quantity.factor, quantity.offset
        if spelt == _spelt(quantity.conventional):  # written in SI: turned back
            yield quantity.si, 1 / factor, -offset / factor
        elif spelt == _spelt(quantity.si):
            yield quantity.conventional, factor, offset


def _prefixes(unit: str) -> Iterator[tuple[str, float, float]]:
    shown = unit or "the declared unit"
    for factor in PREFIXES:
        yield f"{factor:g} {shown}", factor, 0.0
        yield f"{shown} / {factor:g}", 1 / factor, 0.0


def _inside(
    values: Sequence[tuple[float, int]], low: float, high: float, factor: float, offset: float
) -> float:
    slack = 1e-9 * max(abs(low), abs(high))  # a factor that was turned round is not exact
    total = sum(often for _, often in values)
    inside = sum(
        often for value, often in values if low - slack <= value * factor + offset <= high + slack
    )
    return inside / total if total else 0.0


def _is_called(name: str, beginnings: tuple[str, ...]) -> bool:
    words = re.split(r"[\s_.\-/()]+", name.casefold())
    return any(
        name.casefold().startswith(one) or any(word.startswith(one) for word in words)
        for one in beginnings
    )


def _spelt(unit: str) -> str:
    """One spelling of a unit: case, both signs for micro, and 'per' do not matter."""
    said = unit.casefold().replace("μ", "µ").replace(" ", "").replace("per", "/")
    said = re.sub(r"^u(?=mol|g)", "µ", said).replace("/ul", "/µl").replace("mcg", "µg")
    return {"f": "°f", "c": "°c", "lbs": "lb", "inch": "in", "inches": "in", "degc": "°c"}.get(
        said, said
    )
