"""Reads a budget as its officer writes it: one paper for one population of patients."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedkd.data.typed_by_hand import listed, mapping_of, nearest, number, text, truth, yaml_of
from fedkd.knowledge import BadInput, Digest, digest_of_bytes
from fedkd.privacy.ledger import RELATIONS, UNITS
from fedkd.privacy.planning import default_delta, expect_delta

UNPROTECTED: Final = "not_private_answers_leave_unprotected"
"""The key without which nothing leaves a hospital as its model says it."""
NEEDED: Final = (
    "population", "patients", "unit", "relation", "epsilon", "delta", "mechanisms", UNPROTECTED,
    "reason", "replaces",
)  # fmt: skip
OPTIONAL: Final = ("evaluation_groups",)
LEAST, MOST = 1e-6, 100.0
"""Epsilons that a paper may hold, in nats: above, e^epsilon says nothing to anybody."""
MOST_BYTES = 1 << 16
_KNOWN = ("dp_training", "pate", "none")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a population of patients may ever spend, and by which mechanisms.

    `patients` is how many they are, at most; `epsilon` (nats) and `delta` are None together,
    where nothing is private (`unprotected`) or nothing may leave (no `mechanisms`).
    `evaluation_groups` are the columns by which counts may be told apart. `replaces` is the
    digest of the paper before it, None for the first of its population.
    """

    digest: Digest
    population: str
    patients: int
    unit: str
    relation: str
    epsilon: float | None
    delta: float | None
    mechanisms: tuple[str, ...]
    unprotected: bool
    reason: str
    replaces: Digest | None
    evaluation_groups: tuple[str, ...] = ()

    @classmethod
    def read(cls, paper: bytes, where: str = "budget.yaml") -> "Budget":
        """The budget in a YAML paper; `BadInput` names the key that is wrong, and what fits."""
        if len(paper) > MOST_BYTES:
            raise BadInput(f"{where} of {len(paper)} bytes", f"at most {MOST_BYTES}")
        given = mapping_of(yaml_of(paper, where), where, (*NEEDED, *OPTIONAL))
        for key in NEEDED:
            if key not in given:
                raise BadInput(f"no {key} in {where}", "every key", f"add {key}: ...")
        unprotected = truth(given[UNPROTECTED], UNPROTECTED)
        mechanisms = _mechanisms(given["mechanisms"], unprotected)
        patients = _patients(given["patients"])
        epsilon, delta = _bound(given, patients, mechanisms, unprotected)
        return cls(
            digest=digest_of_bytes(paper),
            population=_words(given, "population"),
            patients=patients,
            unit=_one_of(given, "unit", UNITS),
            relation=_one_of(given, "relation", RELATIONS),
            epsilon=epsilon,
            delta=delta,
            mechanisms=mechanisms,
            unprotected=unprotected,
            reason=_words(given, "reason"),
            replaces=_replaces(given["replaces"]),
            evaluation_groups=tuple(
                text(group, "evaluation_groups")
                for group in listed(given.get("evaluation_groups", ()), "evaluation_groups")
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """What the log holds of a paper, beside what its ledger fixes."""
        return {
            "paper": self.digest,
            "patients": self.patients,
            "mechanisms": list(self.mechanisms),
            UNPROTECTED: self.unprotected,
            "evaluation_groups": list(self.evaluation_groups),
            "reason": self.reason,
            "replaces": self.replaces,
        }


def template(population: str, patients: int, *, epsilon: float = 1.0) -> str:
    """A paper for so many patients that is ready to be read, changed and signed, with comments."""
    if not 0 < len(population.strip()) <= 200 or not population.isprintable():
        raise BadInput(f"the population {population!r}", "a name in one line, not empty")
    quoted = population.strip().replace("\\", "\\\\").replace('"', '\\"')
    return _TEMPLATE.format(
        population=quoted,
        patients=_patients(patients),
        epsilon=epsilon,
        delta=f"{default_delta(patients):.6e}",
        flag=UNPROTECTED,
    )


_TEMPLATE = """\
# What may ever be learnt about the patients of one population: a paper of the data protection
# officer. It holds once it is signed (fedkd keys sign budget.yaml --key KEY) and installed at the
# site. Whoever changes a byte of it has to have it signed again.

# Who the patients are. The same patients have one budget, however often their records are
# exported and whatever the file is called.
population: "{population}"
# How many they are, at most. The number is public: it sets delta, and prices depend on it.
patients: {patients}
# Whom the bound is about: patient (all of a person's records together), or record (one row alone,
# which bounds nothing for a person with several).
unit: patient
# What is compared: everything as it is, and with all records of one of them replaced by nothing.
relation: replace_special

# The bound for the whole life of the population, over all runs together. At epsilon 1 the odds
# that somebody took part rise at most e^1 = 2.7-fold, at 4 already 55-fold. It never comes back.
epsilon: {epsilon}
# With about this probability the bound does not hold. Below one over the number of patients.
delta: {delta}

# What may answer for the patients: dp_training (a model trained with noise), pate (noise on the
# answers of models of separate patients). An empty list, [], lets nothing leave.
mechanisms: [dp_training]
# true lets answers leave as an ordinary model gives them, which bounds nothing for anybody. It
# needs mechanisms: [none], epsilon: null and delta: null.
{flag}: false
# Columns by which counts of an evaluation may be told apart, such as sex. Each is paid for.
evaluation_groups: []

# Why the bound is what it is. It is written to the site's log.
reason: "First budget of this population."
# The digest of the paper that this one takes the place of (fedkd privacy budget show SITE prints
# it); null for the first.
replaces: null
"""


def _mechanisms(value: object, unprotected: bool) -> tuple[str, ...]:
    names = tuple(text(name, "mechanisms") for name in listed(value, "mechanisms"))
    for name in names:
        near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.75)
        if not _NAME.fullmatch(name) or (near and name not in _KNOWN):
            raise BadInput(
                f"the mechanism {name!r}",
                f"names of mechanisms such as {', '.join(_KNOWN)}",
                f"did you mean {near[0]!r}?" if near else "",
            )
    if len(set(names)) != len(names):
        raise BadInput(f"a mechanism twice in {list(names)}", "each once")
    if unprotected != (names == ("none",)):
        raise BadInput(
            f"mechanisms: {list(names)} with {UNPROTECTED}: {str(unprotected).lower()}",
            "mechanisms: [none] and that key true, or neither",
            "none bounds nothing for anybody, and never stands beside a mechanism that does"
            if "none" in names
            else "",
        )
    return names


def _bound(
    given: Mapping[str, Any], patients: int, mechanisms: tuple[str, ...], unprotected: bool
) -> tuple[float | None, float | None]:
    epsilon, delta = given["epsilon"], given["delta"]
    if epsilon is None and delta is None and (unprotected or not mechanisms):
        return None, None
    if unprotected:
        raise BadInput(
            f"epsilon: {epsilon} and delta: {delta} with {UNPROTECTED}: true",
            "null for both",
            "no bound holds where answers leave unprotected",
        )
    bound = number(epsilon, "epsilon")
    if not LEAST <= bound <= MOST:
        raise BadInput(
            f"epsilon: {bound:g}", f"a number in [{LEAST:g}, {MOST:g}]", "1 is where to begin"
        )
    chance = number(delta, "delta")
    expect_delta(chance, patients)
    return bound, chance


def _patients(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**9:
        raise BadInput(f"patients: {value!r}", "how many there are, a whole number of at least 1")
    return value


def _words(given: Mapping[str, Any], key: str) -> str:
    said = text(given[key], key).strip()
    if not said or len(said) > 2000:
        raise BadInput(f"{key}: {said[:20]!r}", "some words, at most 2000 characters")
    return said


def _one_of(given: Mapping[str, Any], key: str, options: tuple[str, ...]) -> str:
    said = text(given[key], key)
    if said not in options:
        raise BadInput(f"{key}: {said}", f"one of {', '.join(options)}", nearest(said, options))
    return said


def _replaces(value: object) -> Digest | None:
    if value is None:
        return None
    said = text(value, "replaces")
    if not _DIGEST.fullmatch(said):
        raise BadInput(
            f"replaces: {said!r}",
            "null, or sha256: and 64 hexadecimal digits",
            "fedkd privacy budget show SITE prints the digest of the paper that holds",
        )
    return Digest(said)
