"""Train and test of each dataset, read from the files as they are distributed.

Each function takes the dataset's folder and returns a Found: (path, label, part) of every image, label being the class
folder's name, and where a published list numbers its classes otherwise than by sorted names, that numbering. Raises
UsageError in one line for a file that is not as its format says.
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

HEAD = 16  # entries of the published test list that identify it
AGAIN = "where it was downloaded, remove it and it is fetched again"  # it may be a login's page under the list's name


@dataclass(frozen=True)
class Found:
    """Images, and the published number of each class."""

    images: list[tuple[str, str, str]]
    numbers: dict[str, int] = field(default_factory=dict)

    def published_order(self) -> list[int]:
        """Our labels (sorted names) in the order of the published numbers; [] where there are none that count 0..C-1."""
        ours = {
            name: label for label, name in enumerate(sorted({label for _, label, _ in self.images}))
        }
        if sorted(self.numbers.values()) != list(range(len(ours))):
            return []
        return [ours[name] for name in sorted(self.numbers, key=lambda name: self.numbers[name])]


def folders(root: Path) -> Found:
    """train/CLASS/* and test/CLASS/*, as LAMDA-PILOT distributes ImageNet-R, ImageNet-A, VTAB-CIL and CUB."""
    return Found(
        [image for part in PARTS for image in _images(root, list_classes(root / part), part)]
    )


def seeded(root: Path) -> Found:
    """CLASS/* split 80/20 by a seed: the same split as that of a flat folder without a manifest."""
    train, test = divide(list_classes(root, leave=PARTS))
    return Found([*_images(root, train, "train"), *_images(root, test, "test")])


def _images(
    root: Path, classes: dict[str, list[Path]], part: str
) -> Iterator[tuple[str, str, str]]:
    for name, files in classes.items():
        for file in files:
            yield file.relative_to(root).as_posix(), name, part


def coda(root: Path) -> Found:
    """imagenet-r_{train,test}.yaml of the CODA-Prompt repository; the first entries of the test list must be the published."""
    lists = {part: _yaml_list(root / f"imagenet-r_{part}.yaml", 2) for part in PARTS}
    head = "\n".join(path for path, _ in lists["test"][:HEAD])
    if hashlib.sha256(head.encode()).hexdigest() != catalogue.CODA_HEAD:
        raise UsageError(
            f"{root / 'imagenet-r_test.yaml'}: not the published list (its first {HEAD} entries are others)"
        )
    return _merged(lists, root)


def domainnet_coda(root: Path) -> Found:
    """domainnet_{train,test}.yaml of the CODA-Prompt repository: DOMAIN/CLASS/FILE, domains merged into 345 classes."""
    return _merged({part: _yaml_list(root / f"domainnet_{part}.yaml", 3) for part in PARTS}, root)


def domainnet(root: Path) -> Found:
    """DOMAIN_train.txt and DOMAIN_test.txt, lines 'DOMAIN/CLASS/FILE NUMBER' (ai.bu.edu/M3SDA), domains merged."""
    lists: dict[str, list[tuple[str, int]]] = {part: [] for part in PARTS}
    for domain in catalogue.DOMAINS:
        for part in PARTS:
            for words in _lines(root / f"{domain}_{part}.txt", 2):
                lists[part].append((words[0], _number(words[1], root / f"{domain}_{part}.txt")))
    return _merged(lists, root)


def cub(root: Path) -> Found:
    """images.txt ('ID CLASS/FILE') and train_test_split.txt ('ID 1' for training), both in the official order."""
    names = {words[0]: words[1] for words in _lines(root / "images.txt", 2)}
    chosen = {words[0]: words[1] for words in _lines(root / "train_test_split.txt", 2)}
    if names.keys() != chosen.keys() or not set(chosen.values()) <= {"0", "1"}:
        raise UsageError(
            f"{root / 'train_test_split.txt'}: 0 or 1 for each of the {len(names)} images of images.txt is expected"
        )
    return Found(
        [(f"images/{name}", PurePosixPath(name).parent.name, "train" if chosen[key] == "1" else "test")
         for key, name in names.items()]
    )  # fmt: skip


def tiny(root: Path) -> Found:
    """train/WNID/images/*, and val/images/* labelled by val/val_annotations.txt ('FILE WNID x y w h') as test."""
    train = _images(root, list_classes(root / "train"), "train")
    test = [
        (f"val/images/{words[0]}", words[1], "test")
        for words in _lines(root / "val" / "val_annotations.txt", 6)
    ]
    return Found([*train, *test])


HOW: dict[str, Callable[[Path], Found]] = {
    made.__name__: made for made in (folders, seeded, coda, domainnet_coda, domainnet, cub, tiny)
}


def _merged(lists: dict[str, list[tuple[str, int]]], root: Path) -> Found:
    """The folder of an image is its class; a class that has two numbers is refused."""
    numbers: dict[str, int] = {}
    images = []
    for part, entries in lists.items():
        for path, number in entries:
            name = PurePosixPath(path).parent.name
            if numbers.setdefault(name, number) != number:
                raise UsageError(
                    f"{root}: class '{name}' has the numbers {numbers[name]} and {number} in the published lists"
                )
            images.append((path, name, part))
    return Found(images, numbers)


def _yaml_list(file: Path, depth: int) -> list[tuple[str, int]]:
    """The last `depth` parts of each path under 'data' with its number under 'targets'; safe loading, no tags."""
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
            f"{file}: a list with 'data' and 'targets' is expected ({said}); {AGAIN}"
        ) from error


def _lines(file: Path, words: int) -> Iterator[list[str]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        found = line.split()
        if found and len(found) != words:
            raise UsageError(
                f"{file}: line {number}: {words} words are expected, found {len(found)}; {AGAIN}"
            )
        if found:
            yield found


def _number(word: str, file: Path) -> int:
    if not word.isascii() or not word.isdigit():
        raise UsageError(f"{file}: '{word}': a class number is expected")
    return int(word)
