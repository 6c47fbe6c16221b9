"""Reads a MedMNIST file: small medical images, grey or in colour."""

import zipfile
from pathlib import Path

import numpy as np

from fedkd.data.files import file_of
from fedkd.data.records import Card, Dataset, Records
from fedkd.data.sources.images import image_space
from fedkd.knowledge import Array, BadInput

# N images, C classes.

ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)
# Names as medmnist/info.py has them, some shortened.
CLASSES: dict[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    "dermamnist": (
        "actinic keratoses",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "breastmnist": ("malignant", "normal or benign"),
    "bloodmnist": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "collecting duct, connecting tubule",
        "distal convoluted tubule",
        "glomerular endothelial cells",
        "interstitial endothelial cells",
        "leukocytes",
        "podocytes",
        "proximal tubule segments",
        "thick ascending limb",
    ),
    "organamnist": ORGANS,
    "organcmnist": ORGANS,
    "organsmnist": ORGANS,
}
LICENCES = {"dermamnist": "CC BY-NC 4.0"}
KEYS = ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels")


def medmnist(path: str | None = None, name: str | None = None) -> Dataset:
    """Images uint8 [N, channels, height, width] of the MedMNIST file at `path`, one label each.

    `path` is the npz file, or the folder that holds `<name>.npz`; `name` (by default the file's)
    says which of the twelve sets it is. Its train and val parts become records, test stays test.
    Volumes and several labels an image (chestmnist) are refused with `BadInput`.
    """
    place = file_of(path, f"{name}.npz" if name else None, f"a MedMNIST file {name or 'NAME'}.npz")
    said = (name or place.stem).lower()
    parts = _read(place)
    images = [_channels_first(parts[f"{part}_images"], place) for part in ("train", "val", "test")]
    labels = [_one_label(parts[f"{part}_labels"], place) for part in ("train", "val", "test")]
    records = Records(np.concatenate(images[:2]), np.concatenate(labels[:2]))
    classes = CLASSES.get(said) or tuple(
        f"class {code}" for code in range(max(2, 1 + max(int(each.max()) for each in labels)))
    )
    space = image_space(records.inputs.shape[1:], classes)
    notes = () if said in CLASSES else (f"{said} is no MedMNIST set by name: classes are numbered",)
    return Dataset(_card(said), space, records, Records(images[2], labels[2]), None, notes)


def _card(name: str) -> Card:
    known = name in CLASSES
    return Card(
        name=name,
        version="MedMNIST v2",
        modality="medical images",
        licence=LICENCES.get(name, "CC BY 4.0") if known else "not stated",
        legal_basis="De-identified research images published by their owners; a hospital that "
        "processes its own would have to state its own basis (GDPR, Articles 6 and 9).",
        origin="MedMNIST, and the source that its paper names for this set",
        citation="Yang et al., 2023, Scientific Data, doi:10.1038/s41597-022-01721-8",
    )


def _read(place: Path) -> dict[str, Array]:
    # What is no archive numpy takes for a pickle, and says how to load it unsafely.
    if not zipfile.is_zipfile(place):
        raise BadInput(f"a damaged file {place}, or no npz file", "a MedMNIST npz file")
    try:
        with np.load(place, allow_pickle=False) as kept:
            missing = [key for key in KEYS if key not in kept.files]
            if missing:
                raise BadInput(f"{place.name} without {', '.join(missing)}", f"{', '.join(KEYS)}")
            return {key: kept[key] for key in KEYS}
    except BadInput:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(f"a damaged file {place} ({error})", "a MedMNIST npz file") from error


def _channels_first(images: Array, place: Path) -> Array:
    if images.dtype == np.uint8 and images.ndim == 3:
        return images[:, None]
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    raise BadInput(
        f"images {images.dtype}{images.shape} in {place.name}",
        "uint8 [N, height, width] or [N, height, width, 3]",
        "volumes are not supported",
    )


def _one_label(labels: Array, place: Path) -> Array:
    if labels.size != len(labels):
        raise BadInput(
            f"{labels.shape[1:]} labels an image in {place.name}",
            "one label an image",
            "several labels an image (chestmnist) are not supported",
        )
    return labels.reshape(-1).astype(np.int64)
