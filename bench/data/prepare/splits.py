"""The train and test parts of each dataset, read from the files as they are distributed.

Each reader takes the dataset's folder and returns a Found. It raises UsageError in one line for a
file that does not follow its format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from bench.data import catalogue
from bench.data.folder import divide, list_classes
from bench.data.manifest import PARTS
from bench.errors import UsageError

ENTRIES_CHECKED = 16  # the first entries of the published test list identify it
# A downloaded list may be a login page under the list's name.
RETRY_HINT = "where it was downloaded, remove it and it is fetched again"


@dataclass(frozen=True)
class Found:
    """The images of a dataset, and the published numbers of its classes."""

    images: list[tuple[str, str, str]]  # path, label (name of the class folder), part
    # Number of each class, if a published list numbers them otherwise than by sorted names.
    numbers: dict[str, int] = field(default_factory=dict)

    def published_order(self) -> list[int]:
        """Our labels (positions of the sorted names) in the order of the published numbers.

        [] if the published numbers are not 0..C-1.
        """
        names = sorted({label for _, label, _ in self.images})
        ours = {name: label for label, name in enumerate(names)}
        if sorted(self.numbers.values()) != list(range(len(ours))):
            return []
        return [ours[name] for name in sorted(self.numbers, key=lambda name: self.numbers[name])]


def folders(root: Path) -> Found:
    """train/CLASS/* and test/CLASS/*.

    LAMDA-PILOT distributes ImageNet-R, ImageNet-A, VTAB-CIL and CUB so.
    """
    return Found(
        [image for part in PARTS for image in _images(root, list_classes(root / part), part)]
    )


def seeded(root: Path) -> Found:
    """CLASS/* split 80/20 by a seed, as a flat folder without a manifest is split."""
    train, test = divide(list_classes(root, leave=PARTS))
    return Found([*_images(root, train, "train"), *_images(root, test, "test")])


def _images(
    root: Path, classes: dict[str, list[Path]], part: str
) -> Iterator[tuple[str, str, str]]:
    for name, files in classes.items():
        for file in files:
            yield file.relative_to(root).as_posix(), name, part


def coda(root: Path) -> Found:
    """imagenet-r_{train,test}.yaml of the CODA-Prompt repository.

    The first entries of the test list must be the published ones.
    """
    lists = {part: _yaml_list(root / f"imagenet-r_{part}.yaml", 2) for part in PARTS}
    first = "\n".join(path for path, _ in lists["test"][:ENTRIES_CHECKED])
    if hashlib.sha256(first.encode()).hexdigest() != catalogue.CODA_TEST_LIST_SHA256:
        raise UsageError(
            f"{root / 'imagenet-r_test.yaml'}: not the published list "
            f"(its first {ENTRIES_CHECKED} entries are others)"
        )
    return _merged(lists, root)


def domainnet_coda(root: Path) -> Found:
    """domainnet_{train,test}.yaml of the CODA-Prompt repository, lines DOMAIN/CLASS/FILE.

    The domains are merged into 345 classes.
    """
    return _merged({part: _yaml_list(root / f"domainnet_{part}.yaml", 3) for part in PARTS}, root)


def domainnet(root: Path) -> Found:
    """DOMAIN_train.txt and DOMAIN_test.txt, lines 'DOMAIN/CLASS/FILE NUMBER' (ai.bu.edu/M3SDA).

    The domains are merged.
    """
    lists: dict[str, list[tuple[str, int]]] = {part: [] for part in PARTS}
    for domain in catalogue.DOMAINS:
        for part in PARTS:
            for words in _lines(root / f"{domain}_{part}.txt", 2):
                lists[part].append((words[0], _number(words[1], root / f"{domain}_{part}.txt")))
    return _merged(lists, root)


def cub(root: Path) -> Found:
    """images.txt ('ID CLASS/FILE') and train_test_split.txt ('ID 1' for training)."""
    names = {words[0]: words[1] for words in _lines(root / "images.txt", 2)}
    chosen = {words[0]: words[1] for words in _lines(root / "train_test_split.txt", 2)}
    if names.keys() != chosen.keys() or not set(chosen.values()) <= {"0", "1"}:
        raise UsageError(
            f"{root / 'train_test_split.txt'}: "
            f"0 or 1 for each of the {len(names)} images of images.txt is expected"
        )
    parts = {"1": "train", "0": "test"}
    return Found(
        [
            (f"images/{name}", PurePosixPath(name).parent.name, parts[chosen[key]])
            for key, name in names.items()
        ]
    )


def tiny(root: Path) -> Found:
    """train/WNID/images/* for training, val/images/* for testing.

    val/val_annotations.txt ('FILE WNID x y w h') holds the labels of the test images.
    """
    train = _images(root, list_classes(root / "train"), "train")
    test = [
        (f"val/images/{words[0]}", words[1], "test")
        for words in _lines(root / "val" / "val_annotations.txt", 6)
    ]
    return Found([*train, *test])


READERS: dict[str, Callable[[Path], Found]] = {
    reader.__name__: reader
    for reader in (folders, seeded, coda, domainnet_coda, domainnet, cub, tiny)
}


def _merged(lists: dict[str, list[tuple[str, int]]], root: Path) -> Found:
    """Both parts of lists of (path, class number); the folder of an image is its class.

    Raises UsageError for a class that has two numbers.
    """
    numbers: dict[str, int] = {}
    images = []
    for part, entries in lists.items():
        for path, number in entries:
            name = PurePosixPath(path).parent.name
            if numbers.setdefault(name, number) != number:
                raise UsageError(
                    f"{root}: class '{name}' has the numbers {numbers[name]} and {number} "
                    "in the published lists"
                )
            images.append((path, name, part))
    return Found(images, numbers)


def _yaml_list(file: Path, depth: int) -> list[tuple[str, int]]:
    """The last `depth` names of each path under 'data', with its number under 'targets'.

    The safe loader refuses tags.
    """
    try:
        content: Any = yaml.load(
            file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        paths, numbers = content["data"], content["targets"]
        if len(paths) != len(numbers) or not all(type(number) is int for number in numbers):
            raise ValueError(f"{len(paths)} paths and {len(numbers)} whole numbers do not fit")
        return [
            ("/".join(PurePosixPath(path).parts[-depth:]), number)
            for path, number in zip(paths, numbers, strict=True)
        ]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"{file}: a list with 'data' and 'targets' is expected ({said}); {RETRY_HINT}"
        ) from error


def _lines(file: Path, words: int) -> Iterator[list[str]]:
    """The words of each line that is not empty. Raises UsageError for another number of words."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        found = line.split()
        if found and len(found) != words:
            raise UsageError(
                f"{file}: line {number}: {words} words are expected, found {len(found)}; "
                f"{RETRY_HINT}"
            )
        if found:
            yield found


def _number(word: str, file: Path) -> int:
    if not word.isascii() or not word.isdigit():
        raise UsageError(f"{file}: '{word}': a class number is expected")
    return int(word)
