"""The contract, over every registered dataset: labels, counts, repeatability, parts, roots."""

from dataclasses import replace

import numpy as np
import pytest
from dataset_files import pilot, write
from test_datasets import write_cifar

from bench.config.spec import DataSpec
from bench.config.suite import load_suite
from bench.cost.suite import counts
from bench.data.datasets import SOURCES, load_dataset
from bench.data.missing import require_files
from bench.errors import UsageError

pytestmark = pytest.mark.contract
SIDE = 32  # pixels of the network's images
# A small root for each dataset on disk, written into a folder that does not exist yet.
ROOTS = {
    "cifar100": lambda folder: write_cifar(folder, classes=4, per_class=5),
    "folder": lambda folder: write(folder, pilot()),
}
ON_DISK = [name for name, source in SOURCES.items() if source.on_disk]
EMBEDDED = [name for name, source in SOURCES.items() if not source.on_disk]


@pytest.fixture(params=SOURCES)
def spec(request, tmp_path):
    """Each dataset, on a root of its own if it is on disk."""
    name = request.param
    if name in EMBEDDED:
        return DataSpec(name=name)
    if name not in ROOTS:
        pytest.skip("add a small root for it to ROOTS in this file")
    ROOTS[name](tmp_path / "root")
    return DataSpec(name=name, root=str(tmp_path / "root"))


def test_labels_images_and_digest(spec):
    data = load_dataset(spec, SIDE)
    assert len(data.classes) == len(set(data.classes)) == len(data.domains) > 1
    for part in (data.train, data.test):
        assert set(part.labels) == set(range(len(data.classes)))
        assert len(part.labels) == len(part.images) == len(set(part.numbers))
        assert part.images.dtype == np.uint8
        assert part.images.shape[1:] == (data.side, data.side, 3)
    again = load_dataset(spec, SIDE)
    assert again.sha256 == data.sha256
    assert np.array_equal(again.train.images, data.train.images)
    assert np.array_equal(again.test.labels, data.test.labels)


@pytest.mark.parametrize("evaluate", ["test", "validation"])
def test_parts(spec, evaluate):
    """No image is in both parts, and the dry run counts as many as are loaded."""
    spec = replace(spec, evaluate=evaluate)
    data = load_dataset(spec, SIDE)
    train = {image.tobytes() for image in data.train.images}
    assert not train & {image.tobytes() for image in data.test.images}
    expected = counts(spec)
    if spec.name not in EMBEDDED or not expected.known:
        return  # a small root is not what is known of a dataset
    classes = len(data.classes)
    assert expected.classes == classes
    # The dry run holds out an equal share of each class: exact to one image a class.
    error = classes if evaluate == "validation" else 1e-6
    assert len(data.train.labels) == pytest.approx(expected.train * classes, abs=error)
    assert len(data.test.labels) == pytest.approx(expected.test * classes, abs=error)


@pytest.mark.parametrize("name", ON_DISK)
@pytest.mark.parametrize("content", ["nothing", "a file", "an empty folder", "other files"])
def test_a_bad_root_is_refused_in_one_line(name, content, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    root = tmp_path / "root"
    if content == "a file":
        root.touch()
    elif content != "nothing":
        root.mkdir()
    if content == "other files":
        (root / "notes.txt").write_text("nothing to see")
    with pytest.raises(UsageError) as said:
        load_dataset(DataSpec(name=name, root=str(root)), SIDE)
    assert str(root) in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("name", ON_DISK)
def test_a_missing_root_is_found_before_the_first_cell(name, tmp_path):
    settings = {"data.name": name, "data.root": str(tmp_path / "nowhere")}
    with pytest.raises(UsageError, match=r"nowhere' not found .* \[for nowhere\]$"):
        require_files(load_suite("mini", settings).cells)


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_dataset_takes_no_root(name, tmp_path):
    with pytest.raises(UsageError, match=r"data.root is for data.name=.*folder"):
        load_dataset(DataSpec(name=name, root=str(tmp_path)), SIDE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda images, labels: (images.astype(float), labels), "uint8 are expected"),
        (lambda images, labels: (images[:, :-1], labels), r"images \(n, S, S, 3\)"),
        (lambda images, labels: (images[1:], labels), "integer labels are expected"),
        (lambda images, labels: (images, labels + 1), r"labels 0\.\.9 are expected, not 1\.\.10"),
        (lambda images, labels: (images, labels / 2), "integer labels are expected"),
        (lambda images, labels: (images[labels > 0], labels[labels > 0]), "class '0' has no"),
    ],
)
def test_arrays_of_another_kind_are_refused_in_one_line(change, says, monkeypatch):
    source = SOURCES["digits"]

    def load(spec, image_size):
        raw = source.load(spec, image_size)
        return replace(raw, train=change(*raw.train))

    monkeypatch.setitem(SOURCES, "digits", replace(source, load=load))
    with pytest.raises(UsageError, match=says) as said:
        load_dataset(DataSpec(name="digits"), SIDE)
    assert "\n" not in str(said.value)
