"""What each source yields, from files that the test writes."""

import gzip

import numpy as np
import pytest
from PIL import Image

from fedkd.data import Dataset
from fedkd.data.sources.breast_cancer import breast_cancer
from fedkd.data.sources.digits import digits
from fedkd.data.sources.heart_disease import heart_disease
from fedkd.data.sources.idx_images import idx_images
from fedkd.data.sources.image_folder import image_folder
from fedkd.data.sources.medmnist import medmnist
from fedkd.data.sources.text import text
from fedkd.knowledge import BadInput

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("source", [digits, breast_cancer])
def test_a_bundled_source_is_the_same_twice_and_says_where_it_comes_from(source):
    first, second = source(), source()
    assert isinstance(first, Dataset)
    assert first.digest == second.digest
    assert all((first.card.licence, first.card.legal_basis, first.card.origin, first.card.citation))


def test_a_changed_record_changes_the_digest():
    whole = digits()
    less = Dataset(whole.card, whole.space, whole.records.take(np.arange(1, len(whole.records))))
    assert less.digest != whole.digest


def test_breast_cancer_is_scaled_by_its_published_ranges_alone():
    read = breast_cancer()
    assert np.bincount(read.records.labels).tolist() == [212, 357]
    assert read.space.classes == ("malignant", "benign")
    # 6.981 to 28.11 is what the description prints for the mean radius; 17.99 is the first row's.
    low, high = np.log(6.981), np.log(28.11)
    expected = (np.log(17.99) - (low + high) / 2) / ((high - low) / 5)
    assert read.records.inputs[0, 0] == pytest.approx(expected, abs=1e-5)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder, part, count, packed):
    images = RNG.integers(0, 256, (count, 28, 28))
    labels = np.arange(count) % 10
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        name = f"{part}-{kind}-ubyte" + (".gz" if packed else "")
        body = idx(array)
        (folder / name).write_bytes(gzip.compress(body) if packed else body)
    return images


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_gzipped_or_not(tmp_path, packed):
    images = write_idx(tmp_path, "train", 20, packed)
    write_idx(tmp_path, "t10k", 10, packed)
    read = idx_images(str(tmp_path), "mnist")
    assert (read.records.inputs[:, 0] == images).all()
    assert read.records.labels.tolist() == [*range(10), *range(10)]
    assert len(read.test) == 10
    seen = read.space.scaled(read.records.inputs)
    # mean .1307 and deviation .3081 of a pixel: the constants that everybody uses for this set
    assert np.allclose(seen, (images[:, None] / 255 - 0.1307) / 0.3081, atol=1e-5)


def test_a_test_part_alone_becomes_the_records(tmp_path):
    np.savez(tmp_path / "kmnist-test-imgs.npz", np.zeros((12, 28, 28), np.uint8))
    np.savez(tmp_path / "kmnist-test-labels.npz", np.arange(12, dtype=np.uint8) % 10)
    read = idx_images(str(tmp_path), "kmnist")
    assert len(read.records) == 12
    assert read.test is None
    assert read.notes


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda body: body[:-1], "cut short"),
        (lambda body: b"PK" + body[2:], "header"),
        (lambda body: b"", "header"),
        (lambda body: body[:4] + b"\xff" * 12 + body[16:], "as its sizes"),
    ],
    ids=["cut short", "another format", "empty", "sizes beyond the file"],
)
def test_a_damaged_idx_file_is_refused(tmp_path, damage, says):
    write_idx(tmp_path, "train", 10, packed=False)
    place = tmp_path / "train-images-idx3-ubyte"
    place.write_bytes(damage(place.read_bytes()))
    with pytest.raises(BadInput, match=says):
        idx_images(str(tmp_path), "mnist")


def test_an_empty_folder_or_half_a_pair_is_said(tmp_path):
    with pytest.raises(BadInput, match="train-images-idx3-ubyte"):
        idx_images(str(tmp_path))
    write_idx(tmp_path, "train", 10, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(BadInput, match="without its pair"):
        idx_images(str(tmp_path))


def write_medmnist(place, shape, labels=1):
    parts = {}
    for part, count in (("train", 6), ("val", 2), ("test", 4)):
        parts[f"{part}_images"] = RNG.integers(0, 256, (count, *shape)).astype(np.uint8)
        parts[f"{part}_labels"] = np.tile(np.arange(count)[:, None] % 2, (1, labels))
    np.savez(place, **parts)
    return parts


def test_a_colour_medmnist_file_has_its_channels_first(tmp_path):
    parts = write_medmnist(tmp_path / "dermamnist.npz", (28, 28, 3))
    read = medmnist(str(tmp_path / "dermamnist.npz"))
    assert read.records.inputs.shape == (8, 3, 28, 28)
    assert (read.test.inputs[1, 2] == parts["test_images"][1, :, :, 2]).all()
    assert read.card.licence == "CC BY-NC 4.0"
    assert len(read.space.classes) == 7


def test_volumes_several_labels_and_other_archives_are_refused(tmp_path):
    write_medmnist(tmp_path / "organmnist3d.npz", (28, 28, 28))
    with pytest.raises(BadInput, match="volumes"):
        medmnist(str(tmp_path), "organmnist3d")
    write_medmnist(tmp_path / "chestmnist.npz", (28, 28), labels=14)
    with pytest.raises(BadInput, match="one label an image"):
        medmnist(str(tmp_path), "chestmnist")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(BadInput, match="without train_images"):
        medmnist(str(tmp_path / "other.npz"))
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match="damaged") as told:
        medmnist(str(tmp_path / "broken.npz"))
    assert "pickle" not in str(told.value)
    np.savez(tmp_path / "pickled.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(BadInput):
        medmnist(str(tmp_path / "pickled.npz"))


def test_heart_disease_reads_question_marks_and_zeros_as_missing(tmp_path):
    row = "63.0,1.0,1.0,0,0,1.0,2.0,150.0,0.0,?,3.0,0.0,6.0,3\n"
    for hospital in ("cleveland", "hungarian", "switzerland", "va"):
        (tmp_path / f"processed.{hospital}.data").write_text(row)
    read = heart_disease(str(tmp_path))
    named = dict(zip(read.schema.features, read.records.inputs[0], strict=True))
    assert named["age"] == 1.0
    assert [named[f"{name} missing"] for name in ("trestbps", "chol", "oldpeak")] == [1, 1, 1]
    assert [named[name] for name in ("trestbps", "chol", "oldpeak")] == [0, 0, 0]
    assert named["thal=6"] == 1
    assert read.records.labels.tolist() == [1] * 4
    assert read.records.sites.tolist() == ["cleveland", "hungarian", "switzerland", "va"]
    (tmp_path / "processed.va.data").unlink()
    with pytest.raises(BadInput, match=r"no file .*processed\.va\.data"):
        heart_disease(str(tmp_path))


def test_texts_are_hashed_the_same_alone_and_among_others(tmp_path):
    place = tmp_path / "t.tsv"
    place.write_text('ham\tgood "day\nspam\twin now\nham\tgood "day\nspam\tgood "day\nham\t\n')
    read = text(str(place), header=False, separator="\t", quoted=False, features=64)
    assert read.records.labels.tolist() == [0, 1, 0]
    assert read.notes == (
        "2 texts that occur again were dropped",
        "1 of them had another label than the first one, which was kept",
    )
    assert np.linalg.norm(read.records.inputs, axis=1) == pytest.approx([1, 1, 0], abs=1e-6)
    place.write_text("label,text\nspam,win now\nham,bye\n")
    again = text(str(place), features=64)
    assert (again.records.inputs[0] == read.records.inputs[1]).all()


@pytest.mark.parametrize(
    ("body", "keys", "says"),
    [
        (b"", {}, "empty file"),
        (b"label,txt\na,b\n", {}, "did you mean 'txt'"),
        (b"label,text\na,b\nc\n", {}, "1 fields in row 2"),
        (b"label,text\na,b\n", {}, "at least two classes"),
        (b"label,text\nspm,b\nham,c\n", {"classes": ["ham", "spam"]}, "did you mean 'spam'"),
        ("label,text\na,K\u00f6ln\nb,c\n".encode("latin-1"), {}, "data.encoding=latin-1"),
    ],
    ids=["empty", "no column", "a short row", "one class", "unknown label", "encoding"],
)
def test_a_bad_text_file_is_refused_in_words(tmp_path, body, keys, says):
    place = tmp_path / "t.csv"
    place.write_bytes(body)
    with pytest.raises(BadInput, match=says):
        text(str(place), **keys)


def picture(place, value, mode="RGB", size=(40, 30)):
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(place)


def test_pictures_come_with_their_class_site_and_patient(tmp_path):
    picture(tmp_path / "north" / "ill" / "p1-a.png", (255, 0, 0))
    picture(tmp_path / "north" / "well" / "p1-b.jpg", (0, 0, 0))
    picture(tmp_path / "south" / "ill" / "p2-a.PNG", 0x8000, mode="I;16")
    (tmp_path / "south" / "ill" / "notes.txt").write_text("x")
    read = image_folder(str(tmp_path), size=8, grey=False, sites=True, patient="^(p[0-9]+)")
    assert read.records.inputs.shape == (3, 3, 8, 8)
    assert read.records.inputs[0, :, 0, 0].tolist() == [255, 0, 0]
    assert read.records.inputs[2].min() == 128
    assert read.records.labels.tolist() == [0, 1, 0]
    assert read.records.sites.tolist() == ["north", "north", "south"]
    assert read.records.patients.tolist() == [0, 0, 1]
    assert read.notes == ("1 files that are no PNG or JPEG were left out",)


def test_a_picture_that_does_not_open_is_named(tmp_path):
    picture(tmp_path / "a" / "1.png", 0, mode="L")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:40])
    with pytest.raises(BadInput, match=r"2\.png, which does not open"):
        image_folder(str(tmp_path))


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no picture CLASS/FILE"):
        image_folder(str(tmp_path))
    picture(tmp_path / "a" / "1.png", 0, mode="L")
    with pytest.raises(BadInput, match="one class"):
        image_folder(str(tmp_path))
    with pytest.raises(BadInput, match="no picture SITE/CLASS/FILE"):
        image_folder(str(tmp_path), sites=True)
