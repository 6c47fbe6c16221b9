"""Reads MNIST and its kin: idx files, gzipped or not, and npz pairs."""

import gzip
import math
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np

from fedkd.data.files import folder_of, one_of
from fedkd.data.records import Card, Dataset, Records
from fedkd.data.sources.images import image_space
from fedkd.knowledge import Array, BadInput, OneOf

# N images.

NO_PATIENTS = "No health data: pictures published for research by their owners."
CARDS = {
    "fashion_mnist": Card(
        name="fashion-mnist",
        version="1 (2017)",
        modality="grey images 28x28 of clothing",
        licence="MIT",
        legal_basis=NO_PATIENTS,
        origin="Zalando Research",
        citation="Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747",
    ),
    "mnist": Card(
        name="mnist",
        version="1998",
        modality="grey images 28x28 of handwritten digits",
        licence="CC BY-SA 3.0",
        legal_basis=NO_PATIENTS,
        origin="LeCun, Cortes and Burges, from NIST special databases 1 and 3",
        citation="LeCun, Bottou, Bengio and Haffner, 1998, doi:10.1109/5.726791",
    ),
    "kmnist": Card(
        name="kmnist",
        version="1 (2018)",
        modality="grey images 28x28 of cursive Japanese characters",
        licence="CC BY-SA 4.0",
        legal_basis=NO_PATIENTS,
        origin="KMNIST Dataset (created by CODH), adapted from Kuzushiji Dataset (created by NIJL "
        "and others), doi:10.20676/00000341",
        citation="Clanuwat et al., 2018, arXiv:1812.01718",
    ),
}
CLASSES = {
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "mnist": tuple(str(digit) for digit in range(10)),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


PUBLISHED = {
    "fashion_mnist": (0.2860, 0.3530),
    "mnist": (0.1307, 0.3081),
    "kmnist": (0.1918, 0.3483),
}
"""Mean and standard deviation of a pixel, as everybody who uses these sets writes them down.

Typed here, never computed: no hospital's records enter its scaling.
"""


def idx_images(
    path: str | None = None,
    name: Annotated[str, OneOf(("fashion_mnist", "mnist", "kmnist"))] = "fashion_mnist",
) -> Dataset:
    """Images uint8 [N, 1, 28, 28] of ten classes in the folder `path`.

    The train part becomes records, the t10k part test; where only a test part is there (as of
    kmnist) it becomes records. Looks for `train-images-idx3-ubyte[.gz]` and its kin, then for
    `<name>-train-imgs.npz`. `BadInput` for a missing, damaged or unpaired file.
    """
    if name not in CARDS:
        raise BadInput(f"data.name={name}", f"one of {', '.join(CARDS)}")
    expected = (
        "train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz] and the like for t10k, or "
        f"{name}-test-imgs.npz and {name}-test-labels.npz"
    )
    folder = folder_of(path, expected)
    train, test = (_part(folder, name, part) for part in ("train", "test"))
    records = test if train is None else train
    if records is None:
        raise BadInput(f"no such file in {folder}", expected, "set data.path=PATH")
    notes: tuple[str, ...] = ()
    if train is None:
        test, notes = None, ("only the test part is there: its images are the records",)
    mean, std = PUBLISHED[name]
    space = image_space(records.inputs.shape[1:], CLASSES[name], mean=mean, std=std)
    return Dataset(CARDS[name], space, records, test, None, notes)


def _part(folder: Path, name: str, part: str) -> Records | None:
    images, labels = one_of(folder, _names(name, part, 3)), one_of(folder, _names(name, part, 1))
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        there = images or labels
        raise BadInput(f"{there} without its pair", "images and labels of one part")
    pixels, codes = read_array(images), read_array(labels)
    if pixels.ndim != 3 or codes.shape != (len(pixels),) or pixels.dtype != np.uint8:
        raise BadInput(
            f"images {pixels.dtype}{pixels.shape} and labels {codes.shape} in {folder}",
            "images uint8 [N, height, width] and labels [N]",
        )
    return Records(pixels[:, None], codes.astype(np.int64))


def _names(name: str, part: str, dimensions: int) -> list[str]:
    idx = "train" if part == "train" else "t10k"
    what, short = ("images", "imgs") if dimensions == 3 else ("labels", "labels")
    stems = [f"{idx}-{what}-idx{dimensions}-ubyte", f"{idx}-{what}.idx{dimensions}-ubyte"]
    return [*stems, *(f"{stem}.gz" for stem in stems), f"{name}-{part}-{short}.npz"]


def read_array(place: Path) -> Array:
    """The array in an idx, idx.gz or one-array npz file; `BadInput` where it is damaged."""
    try:
        if place.suffix == ".npz":
            with np.load(place, allow_pickle=False) as kept:
                return np.asarray(kept[kept.files[0]])
        body = gzip.decompress(place.read_bytes()) if place.suffix == ".gz" else place.read_bytes()
    except (OSError, EOFError, zlib.error, ValueError, zipfile.BadZipFile, IndexError) as error:
        raise BadInput(
            f"a damaged file {place} ({error})", "a whole one", "fetch it again"
        ) from error
    return _idx(body, place)


def _idx(body: bytes, place: Path) -> Array:
    """Bytes of the format at http://yann.lecun.com/exdb/mnist: magic, big-endian sizes, bytes."""
    dimensions = body[3] if len(body) > 3 else 0
    head = 4 + 4 * dimensions
    if body[:3] != b"\0\0\x08" or not 1 <= dimensions <= 4 or len(body) < head:
        raise BadInput(f"a header {body[:4].hex()} in {place.name}", "an idx file of bytes")
    shape = tuple(int(size) for size in np.frombuffer(body, ">u4", dimensions, offset=4))
    if len(body) - head != math.prod(shape):
        raise BadInput(
            f"{len(body) - head} bytes after the header of {place.name}",
            f"{math.prod(shape)}, as its sizes {shape} say",
            "the file is cut short or damaged: fetch it again",
        )
    return np.frombuffer(body, np.uint8, offset=head).reshape(shape)
