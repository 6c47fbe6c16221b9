"""Keeps a model's weights in a safetensors file: whole, or not there."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedkd.knowledge import Array, BadInput


def save_weights(path: Path, weights: Mapping[str, Array]) -> None:
    """Writes `weights`; after a crash at any moment the file is the old one or the new one.

    The same weights give the same bytes: no metadata, whose order would differ.
    """
    from safetensors.numpy import save

    body = save({name: np.array(array, order="C") for name, array in weights.items()})
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too must outlive a crash
    finally:
        os.close(folder)


def load_weights(path: Path) -> dict[str, Array]:
    """The arrays that `save_weights` wrote; `BadInput` where the file holds none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except SafetensorError as error:
        raise BadInput(
            f"{path.name}, which cannot be read ({error})", "a safetensors file"
        ) from None
