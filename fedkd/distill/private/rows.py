"""Says what is clipped: some patients' rows, and their gradients as norms and as a weighted sum."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from fedkd.distill.private.sums import pairs, squares

# B rows, P patients, M rows of one patient, D trained numbers.


class NoSuchWay(Exception):
    """This way of clipping does not fit this model: another one is taken."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Whole patients' rows, those of one patient next to each other.

    `inputs` [B, ...] are publicly scaled, `sizes` [B] their squared norms in float64, `labels`
    [B]; `patient` [B] are places in `counts`, never falling; `counts` [P] say how many rows each
    patient has, at least one.
    """

    inputs: Tensor
    sizes: Tensor
    labels: Tensor
    patient: Tensor
    counts: Tensor

    @staticmethod
    def from_columns(inputs: Tensor, labels: Tensor, patient: Tensor, counts: Tensor) -> "Rows":
        """Rows whose inputs are measured here, once."""
        flat = inputs.flatten(1) if len(inputs) else inputs.new_zeros(0, 1)
        return Rows(inputs, squares(flat), labels, patient, counts)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def several(self) -> bool:
        """Whether any patient has more than one row."""
        return len(self.counts) < len(self.labels)

    @cached_property
    def shares(self) -> Tensor:
        """What a row [B] is of its patient's mean: one over the number of rows."""
        return (1.0 / self.counts)[self.patient]

    @cached_property
    def alike(self) -> list["Alike"]:
        """The patients, put together by how many rows they have: 1, 2, up to 4, up to 8, ..."""
        first = self.counts.cumsum(0) - self.counts
        left, width, groups = torch.ones_like(self.counts, dtype=torch.bool), 1, []
        while bool(left.any()):
            patients = torch.nonzero(left & (self.counts <= width)).squeeze(1)
            left[patients] = False
            if len(patients):
                there = torch.arange(width) < self.counts[patients].unsqueeze(1)
                places = first[patients].unsqueeze(1) + torch.arange(width) * there
                groups.append(Alike(patients, places, there.float()))
            width *= 2
        return groups

    @cached_property
    def input_pairs(self) -> list[Tensor]:
        """For each group of `alike`: the products of each patient's inputs, [P', M, M] float64."""
        flat = self.inputs.flatten(1)
        return [pairs(flat, group.places) for group in self.alike]

    def of_rows(self, factors: Tensor) -> Tensor:
        """A number for each patient [P] as one for each row [B]."""
        return factors[self.patient] if self.several else factors

    def are_inputs(self, tensor: Tensor) -> bool:
        """Whether `tensor` [B, F] is a view of the inputs, so that what is known of them holds."""
        same = tensor.data_ptr() == self.inputs.data_ptr()
        return same and tensor.numel() == self.inputs.numel() and tensor.is_contiguous()

    def cut(self, most: int) -> "Iterator[Rows]":
        """These rows in parts of at most `most`, patients whole; one with more is a part alone."""
        if not len(self):
            return
        if len(self) <= most:
            yield self
            return
        ends = self.counts.cumsum(0)
        patient = row = 0
        while patient < len(ends):
            last = int(torch.searchsorted(ends, row + most, right=True))
            last = max(last, patient + 1)
            end = int(ends[last - 1])
            yield Rows(
                self.inputs[row:end],
                self.sizes[row:end],
                self.labels[row:end],
                self.patient[row:end] - patient,
                self.counts[patient:last],
            )
            patient, row = last, end

    def of(self, patients: Tensor) -> "Rows":
        """The rows of these patients alone: `patients` [P] is a mask."""
        rows = patients[self.patient]
        places = patients.cumsum(0) - 1
        return Rows(
            self.inputs[rows],
            self.sizes[rows],
            self.labels[rows],
            places[self.patient[rows]],
            self.counts[patients],
        )


class Alike(NamedTuple):
    """Patients P' with about as many rows as each other, M at most."""

    patients: Tensor  # [P'], their places among all
    places: Tensor  # [P', M], their rows' places; in place of a row that is not there, the first
    there: Tensor  # [P', M], 1 for a row, 0 for one that is not there


class Gradients(NamedTuple):
    """One gradient a patient: the mean over the patient's rows of the rows' cross-entropies."""

    norms: Tensor  # [P] float64, squared Euclidean norms over all trained numbers together
    total: Callable[[Tensor], Tensor]  # factors [P] float64 -> their weighted sum [D] float64


class Way(NamedTuple):
    """How the gradients of some rows are had."""

    name: str
    gradients: Callable[[Rows], Gradients]
    trained: int  # D
    written: int  # numbers that are written out for a row, besides what the layers make of it
