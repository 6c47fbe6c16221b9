"""Pairs patients that were learnt from with like ones that were not: a fair coin chose between."""

from dataclasses import dataclass

import numpy as np

from fedkd.knowledge import Array

# N rows (members' first, then others'), k pairs, A rows under attack, R other rows, K shadows.


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """Who is compared with whom, in rows of the members' and the others' records together.

    `rows` [A] are under attack, `unit` [A] says of whom each is: 2 * pair for the member, one more
    for the other. `rest` [R] are the members' rows that are in no pair: they are learnt from in
    any case, as an attacker may know who knows all patients but one.
    """

    rows: Array
    unit: Array
    rest: Array
    pairs: int

    def learnt_from(self, member_in: Array) -> Array:
        """Rows of a training where `member_in` [k] says for each pair whether the member is in."""
        chosen = np.where(member_in, 0, 1)[self.unit // 2] == self.unit % 2
        return np.sort(np.concatenate([self.rest, self.rows[chosen]]))

    def by_unit(self, scores: Array) -> Array:
        """The mean score of each patient's rows [2k], from the scores of all rows [A]."""
        count = np.bincount(self.unit, minlength=2 * self.pairs)
        return np.asarray(np.bincount(self.unit, scores, minlength=2 * self.pairs) / count)

    def inside(self, member_in: Array) -> Array:
        """Which patients the shadows learn from, bool [K, 2k], from `member_in` [K, k]."""
        both = np.stack([member_in, ~member_in], axis=2)
        return np.asarray(both.reshape(len(member_in), 2 * self.pairs))


def paired(
    labels: Array,
    patients: Array | None,
    others_labels: Array,
    others_patients: Array | None,
    rng: np.random.Generator,
    *,
    most_rows: int | None = None,
) -> Pairing:
    """As many pairs as there are like patients: equal label of the first row, equal rows.

    Where a split drew members at random within each label, either of a pair was as likely to be
    the member: that makes the coin fair. `labels` [M] and `others_labels` [O], with the codes of
    their patients (None: each row is a patient). Patients of more than `most_rows` are left out:
    where privacy is for single records, to take one of those out is to take several steps.
    """
    mine, theirs = _units(labels, patients), _units(others_labels, others_patients)
    if most_rows is not None:
        mine = {kind: units for kind, units in mine.items() if kind[1] <= most_rows}
    rows: list[Array] = []
    units: list[Array] = []
    taken = np.zeros(len(labels), dtype=bool)
    pair = 0
    for kind in sorted(set(mine) & set(theirs)):
        first, second = rng.permutation(len(mine[kind])), rng.permutation(len(theirs[kind]))
        for a, b in zip(first, second, strict=False):
            for side, own in ((0, mine[kind][a]), (1, theirs[kind][b] + len(labels))):
                rows.append(own)
                units.append(np.full(len(own), 2 * pair + side))
            taken[mine[kind][a]] = True
            pair += 1
    none = np.zeros(0, dtype=np.int64)
    return Pairing(
        np.concatenate([none, *rows]),
        np.concatenate([none, *units]),
        np.flatnonzero(~taken),
        pair,
    )


def _units(labels: Array, patients: Array | None) -> dict[tuple[int, int], list[Array]]:
    """The rows of each patient, by (label of the first row, number of rows)."""
    codes = np.arange(len(labels)) if patients is None else patients
    order = np.argsort(codes, kind="stable")
    _, starts = np.unique(codes[order], return_index=True)
    kinds: dict[tuple[int, int], list[Array]] = {}
    for own in np.split(order, starts[1:]) if len(order) else []:
        kinds.setdefault((int(labels[own[0]]), len(own)), []).append(own)
    return kinds


def together(first: Array, second: Array) -> Array:
    """The members' rows and then the others': what a pairing counts its rows in."""
    return np.concatenate([first, second])
