"""Folders, CIFAR-100's archive and the digits: read as distributed, and nothing in them runs."""

import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import photographs
from PIL import Image
from test_bad_input import good_folder, write_images

from bench.config.spec import DataSpec
from bench.data.datasets import load_dataset
from bench.data.folder import load_folder
from bench.data.prepare import archives
from bench.data.views import RaggedImages
from bench.errors import UsageError
from bench.paths import cache_dir


def test_train_and_test_folders(tmp_path):
    data = load_dataset(
        DataSpec(name="folder", root=str(good_folder(tmp_path / "p")), decode=24), 16
    )
    assert data.classes == ("a", "b", "c", "d")
    assert data.train.images.shape == (8, 24, 24, 3)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert data.side == 24


def test_a_flat_folder_is_split_by_a_seed(tmp_path):
    for start, name in ((0, "x"), (50, "y")):
        write_images(tmp_path / "flat" / name, count=10, start=start)
    one = load_dataset(DataSpec(name="folder", root=str(tmp_path / "flat")), 16)
    assert len(one.train.labels) == 16
    assert len(one.test.labels) == 4
    two = load_dataset(DataSpec(name="folder", root=str(tmp_path / "flat")), 16)
    assert one.sha256 == two.sha256
    assert not {i.tobytes() for i in one.train.images} & {i.tobytes() for i in one.test.images}


def test_validation_is_held_out_of_training(tmp_path):
    for part in ("train", "test"):
        for name in ("x", "y"):
            write_images(tmp_path / "p" / part / name, count=10)
    spec = DataSpec(name="folder", root=str(tmp_path / "p"), evaluate="validation")
    data = load_dataset(spec, 16)
    assert len(data.train.labels) == 16
    assert len(data.test.labels) == 4
    train_numbers, held_numbers = set(data.train.numbers), set(data.test.numbers)
    assert not train_numbers & held_numbers
    assert len(train_numbers | held_numbers) == 20


def test_decoding_is_the_documented_one(tmp_path):
    root = good_folder(tmp_path / "p")
    _, (train, _), _ = load_folder(root, 20)
    image = Image.open(
        root / "train" / "a" / "0.png"
    )  # 40 x 30: shorter side to 20, then the centre
    resized = np.asarray(image.resize((27, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(train[0], resized[:, 3:23])


@pytest.mark.parametrize(("decode", "size"), [(0, (30, 40)), (20, (20, 27))])
def test_training_crops_of_whole_images(decode, size, tmp_path):
    """They have their own size or a given shorter side; the test view is that of squares."""
    root = good_folder(tmp_path / "p")
    spec = DataSpec(name="folder", root=str(root), decode=decode, crops_of="whole")
    whole, squares = (
        load_dataset(spec, 16),
        load_dataset(replace(spec, decode=0, crops_of="square"), 16),
    )
    assert whole.train.images.sizes.tolist() == [list(size)] * 8
    image = Image.open(root / "train" / "a" / "0.png")
    assert np.array_equal(
        whole.train.images.image(0), np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    )
    assert np.array_equal(whole.test.images, squares.test.images)
    assert whole.sha256 != squares.sha256
    again = load_dataset(spec, 16)
    assert np.array_equal(again.train.images.pixels, whole.train.images.pixels)
    held = load_dataset(replace(spec, evaluate="validation"), 16)
    assert isinstance(held.test.images, RaggedImages)
    assert held.side == squares.side == 18


def test_a_cell_on_whole_images(tmp_path, run, tiny_spec):
    for part in ("train", "test"):
        for name in "wxyz":
            write_images(tmp_path / "p" / part / name, count=5)
    data = DataSpec(
        name="folder",
        root=str(tmp_path / "p"),
        tasks=2,
        crops_of="whole",
        crop_low=0.1,
        evaluate="validation",
    )
    state, folder = run(replace(tiny_spec, method="hlgp", type="hlgp", data=data))
    assert state["status"] == "done", state
    again, other = run(replace(tiny_spec, method="hlgp", type="hlgp", data=data), "again")
    assert (folder / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert again["stream_sha"] == state["stream_sha"]


@pytest.mark.parametrize("kind", ["jpg", "tif", "png", "webp"])
def test_a_photograph_that_lies_on_its_side_is_measured_upright(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 24)).save(tmp_path / part / name / f"0.{kind}", exif=exif)
    data = load_dataset(DataSpec(name="folder", root=str(tmp_path), crops_of="whole"), 16)
    assert data.train.images.sizes.tolist() == [[40, 24]] * 2
    assert len(data.train.images.pixels) == 2 * 3 * 40 * 24


def test_images_that_the_cache_could_not_keep_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    root = good_folder(tmp_path / "p")
    monkeypatch.setenv("BENCH_CACHE_LIMIT", "0.000001")
    for crops in ("square", "whole"):
        with pytest.raises(UsageError, match=r"BENCH_CACHE_LIMIT=\S+: images that take \S+ GiB"):
            load_dataset(DataSpec(name="folder", root=str(root), crops_of=crops, decode=400), 16)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_other_image_modes_become_rgb(mode, tmp_path):
    root = good_folder(tmp_path / "p")
    write_images(root / "train" / "a", mode=mode)
    assert load_folder(root, 16)[1][0].shape == (8, 16, 16, 3)


def test_decoded_images_are_cached_and_a_changed_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    root = good_folder(tmp_path / "p")
    first = load_folder(root, 16)[1][0]
    (array,) = [
        f for f in (cache_dir() / "images").glob("*.npy") if np.array_equal(np.load(f), first)
    ][:1]
    stored = bytearray(array.read_bytes())
    stored[-1] ^= 255
    array.write_bytes(stored)  # a flipped bit in the cache is never used
    assert np.array_equal(load_folder(root, 16)[1][0], first)
    write_images(root / "train" / "a", size=(31, 37))
    assert not np.array_equal(load_folder(root, 16)[1][0], first)


# --- CIFAR-100 --------------------------------------------------------------------------------


def write_cifar(folder, classes=4, per_class=3):
    """A small archive in the official layout, unpacked: ROOT/cifar-100-python/..."""
    base = folder / "cifar-100-python"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", per_class), ("test", 2)):
        labels = [label for label in range(classes) for _ in range(count)]
        content = {
            "data": rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8),
            "fine_labels": labels,
            "coarse_labels": [0] * len(labels),
            "filenames": [f"{i}.png" for i in range(len(labels))],
            "batch_label": "batch 1 of 1",
        }
        (base / part).write_bytes(pickle.dumps(content, protocol=2))
    names = {
        "fine_label_names": [f"class{i}" for i in range(classes)],
        "coarse_label_names": ["all"],
    }
    (base / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return base


def test_cifar_in_the_official_format(tmp_path):
    base = write_cifar(tmp_path / "c")
    (tmp_path / "again").mkdir()
    with tarfile.open(tmp_path / "again" / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(base, "cifar-100-python")
    archives.unpack(tmp_path / "again" / "cifar-100-python.tar.gz", "")
    data = load_dataset(DataSpec(name="cifar100", root=str(tmp_path / "again")), 32)
    assert data.classes == ("class0", "class1", "class2", "class3")
    raw = pickle.loads((base / "train").read_bytes())
    assert np.array_equal(data.train.images[5, :, :, 1].ravel(), raw["data"][5, 1024:2048])
    assert data.train.labels.tolist() == raw["fine_labels"]
    assert load_dataset(DataSpec(name="cifar100", root=str(base)), 32).sha256 == data.sha256


def test_torchvision_reads_the_same_archive(tmp_path, monkeypatch):
    """Our reader refuses pickles that could run; on the official format both must agree."""
    from bench.backbone.torchvision_guard import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import CIFAR100

    write_cifar(tmp_path)
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    theirs = CIFAR100(tmp_path, train=True)
    ours = load_dataset(DataSpec(name="cifar100", root=str(tmp_path)), 32)
    assert np.array_equal(ours.train.images, theirs.data)
    assert ours.train.labels.tolist() == theirs.targets
    assert list(ours.classes) == theirs.classes


class _Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


def test_a_malicious_archive_does_not_run(tmp_path):
    base = write_cifar(tmp_path / "c")
    (base / "train").write_bytes(
        pickle.dumps({"data": _Payload(tmp_path / "ran"), "fine_labels": [0]})
    )
    with pytest.raises(UsageError, match="not allowed"):
        load_dataset(DataSpec(name="cifar100", root=str(tmp_path / "c")), 32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda base: (base / "train").unlink(), "no cifar-100-python/train"),
        (lambda base: (base / "test").write_bytes(b""), "not a readable CIFAR-100 file"),
        (
            lambda base: (base / "test").write_bytes(pickle.dumps({"x": 1})),
            "'fine_labels' expected",
        ),
        (lambda base: (base / "meta").unlink(), "not a readable CIFAR-100 file"),
    ],
)
def test_a_broken_archive_is_named(breaks, says, tmp_path):
    base = write_cifar(tmp_path / "c")
    breaks(base)
    with pytest.raises(UsageError, match=says):
        load_dataset(DataSpec(name="cifar100", root=str(tmp_path / "c")), 32)


# --- digits -----------------------------------------------------------------------------------


def test_digits():
    data = load_dataset(DataSpec(name="digits"), 32)
    assert len(data.train.labels) + len(data.test.labels) == 1797
    assert data.train.images.shape[1:] == (32, 32, 3)
    assert len(data.classes) == 10
    assert data.train.images.max() == 255


# --- real photographs, where they are there ---------------------------------------------------


@pytest.mark.shared
def test_real_photographs(tmp_path):
    for part in ("train", "test"):
        for folder in sorted((photographs("grocery") / part).iterdir())[:4]:
            (tmp_path / "p" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / part / folder.name).symlink_to(folder)
    data = load_dataset(DataSpec(name="folder", root=str(tmp_path / "p"), decode=112), 98)
    assert len(data.classes) == 4
    assert data.train.images.shape[1:] == (112, 112, 3)
    assert 20 < data.train.images.mean() < 235
