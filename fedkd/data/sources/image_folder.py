"""Reads pictures from folders: one folder a class, or one a site with one a class in it."""

import re
from pathlib import Path
from typing import Annotated

import numpy as np

from fedkd.data.files import folder_of
from fedkd.data.records import Card, Dataset, Records
from fedkd.data.sources.images import image_space
from fedkd.data.tables import folder_names
from fedkd.knowledge import Array, BadInput, Range

# N images.

ENDINGS = (".png", ".jpg", ".jpeg")


def image_folder(
    path: str | None = None,
    size: Annotated[int, Range(4, 512)] = 28,
    grey: bool = True,
    sites: bool = False,
    patient: str | None = None,
    name: str | None = None,
    licence: str = "not stated",
    origin: str = "not stated",
    legal_basis: str = "not stated",
) -> Dataset:
    """PNG and JPEG files under `path`, uint8 [N, 1 or 3, size, size].

    The layout is `class/file`, with `sites` it is `site/class/file`; classes are sorted by name.
    Pictures are turned as their EXIF says, then resized to a square (their aspect is not kept);
    16-bit ones lose their lower 8 bits. `patient` is a regular expression whose first group, in
    the file's name, is the patient. Other files are left out with a note; `BadInput` names a
    picture that does not open.
    """
    layout = "SITE/CLASS/FILE.png" if sites else "CLASS/FILE.png"
    folder = folder_of(path, f"pictures as {layout}")
    found = sorted(folder.glob("*/*/*" if sites else "*/*"))
    files = [each for each in found if each.suffix.lower() in ENDINGS and each.is_file()]
    if not files:
        raise BadInput(
            f"no picture {layout} in {folder}", "PNG or JPEG files", "set data.path=PATH"
        )
    classes = tuple(sorted({each.parent.name for each in files}))
    if len(classes) < 2:
        raise BadInput(f"one class, {classes[0]!r}, in {folder}", "a folder a class, two or more")
    images = np.stack([_picture(each, size, grey) for each in files])
    labels = np.array([classes.index(each.parent.name) for each in files], dtype=np.int64)
    places = [each.parent.parent.name for each in files] if sites else None
    names, patients = _patients(files, patient)
    records = Records(images, labels, patients, None if places is None else _sites(places))
    other = sum(each.is_file() for each in found) - len(files)
    notes = (f"{other} files that are no PNG or JPEG were left out",) if other else ()
    card = Card(name or folder.name, "not stated", "images", licence, legal_basis, origin)
    space = image_space(images.shape[1:], classes)
    return Dataset(card, space, records, None, None, notes, names)


def _sites(places: list[str]) -> Array:
    names, codes = np.unique(places, return_inverse=True)
    return folder_names([str(name) for name in names])[codes]


def _picture(place: Path, size: int, grey: bool) -> Array:
    """One picture, uint8 [channels, size, size]."""
    from PIL import Image, ImageOps

    try:
        with Image.open(place) as opened:
            turned = ImageOps.exif_transpose(opened)
            if turned.mode.startswith("I"):
                turned = Image.fromarray((np.asarray(turned) // 256).clip(0, 255).astype(np.uint8))
            plain = turned.convert("L" if grey else "RGB")
            pixels = np.asarray(plain.resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"{place}, which does not open ({error})", "a PNG or JPEG picture"
        ) from error
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _patients(files: list[Path], pattern: str | None) -> tuple[tuple[str, ...], Array | None]:
    if pattern is None:
        return (), None
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise BadInput(f"data.patient={pattern!r} ({error})", "a regular expression") from error
    if not wanted.groups:
        raise BadInput(f"data.patient={pattern!r}", "a regular expression with a group in brackets")
    said = [wanted.search(each.name) for each in files]
    for place, match in zip(files, said, strict=True):
        if match is None:
            raise BadInput(f"{place.name} without a patient", f"a name as {pattern!r} describes")
    names, codes = np.unique([match[1] for match in said if match], return_inverse=True)
    return tuple(map(str, names)), codes.astype(np.int64)
