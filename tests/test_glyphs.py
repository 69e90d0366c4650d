"""The embedded benchmark: images as a pure function of their key, and classes that stay apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.spec import DataSpec
from bench.data import glyphs
from bench.data.datasets import GLYPH_SETS, TEST_IMAGES, TRAIN_IMAGES, load_dataset
from bench.data.glyph_masks import base_letter
from bench.errors import UsageError


def test_sizes_of_the_parts():
    sizes = np.bincount(glyphs.asset()["part"])
    assert sizes[glyphs.PRETRAIN] == 1000
    assert list(sizes[1:5]) == [60] * 4
    assert sizes[glyphs.TUNE] >= 300


def test_no_letter_family_crosses_parts():
    stored = glyphs.asset()
    part_of: dict[str, set[int]] = {}
    for code, part in zip(stored["codes"], stored["part"], strict=True):
        part_of.setdefault(base_letter(int(code)), set()).add(int(part))
    assert all(len(parts) == 1 for parts in part_of.values())
    assert base_letter(ord("á")) == base_letter(ord("Ā")) == base_letter(ord("a")) == "a"
    assert base_letter(ord("ø")) == "o", "a stroke does not decompose, its name says it"


def test_altered_masks_are_refused(monkeypatch, tmp_path):
    changed = {name: np.load(glyphs.ASSET)[name] for name in ("codes", "part", "masks")}
    changed["masks"][0, 0, 10, 5] ^= 1
    np.savez_compressed(tmp_path / "glyphs.npz", **changed)
    monkeypatch.setattr(glyphs, "ASSET", tmp_path / "glyphs.npz")
    with pytest.raises(UsageError, match="digest differs"):
        glyphs.asset.__wrapped__()


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 40), st.randoms())
def test_an_image_does_not_depend_on_its_company(seed, count, random):
    rows = np.array([random.randrange(1500) for _ in range(count)])
    index = np.array([random.randrange(5000) for _ in range(count)])
    style = np.array([random.choice(list(glyphs.STYLES)) for _ in range(count)])
    together = glyphs.render(seed, rows, index, style)
    order = np.array(random.sample(range(count), count))
    assert np.array_equal(
        glyphs.render(seed, rows[order], index[order], style[order]), together[order]
    )
    one = slice(0, 1)
    assert np.array_equal(glyphs.render(seed, rows[one], index[one], style[one]), together[one])


def test_seed_index_class_and_style_all_matter():
    def image(seed=0, row=3, index=7, style="plain"):
        return glyphs.render(seed, np.array([row]), np.array([index]), np.array([style]))

    for other in (image(seed=1), image(row=4), image(index=8), image(style="halo")):
        assert not np.array_equal(image(), other)


def test_styles_are_visible_and_not_saturated():
    rows = np.repeat(glyphs.classes_of(1), 4)
    for style in glyphs.STYLES:
        images = glyphs.render(5, rows, np.arange(len(rows)), np.full(len(rows), style)).astype(
            float
        )
        deviation = images.std(axis=(1, 2)).max(axis=1)
        assert np.median(deviation) > 5, style
        assert ((images == 0) | (images == 255)).mean() < 0.3, style


def test_the_images_are_the_same_everywhere():
    """The renderer uses exactly rounded arithmetic only: these bytes are part of the benchmark."""
    import hashlib

    rows = np.arange(0, 1500, 7)
    styles = np.array(list(glyphs.STYLES))[np.arange(len(rows)) % len(glyphs.STYLES)]
    digest = hashlib.sha256(
        glyphs.render(11, rows, np.arange(len(rows)), styles).tobytes()
    ).hexdigest()
    assert digest == "630170f18e67bf34869adc5d1e9011dba96b017b427c81d6783a0afb047010f5"


@pytest.mark.parametrize("name", GLYPH_SETS)
def test_parts_of_each_benchmark_are_disjoint(name):
    test = load_dataset(DataSpec(name=name), 32)
    validation = load_dataset(DataSpec(name=name, evaluate="validation"), 32)
    classes = len(test.classes)
    assert len(test.train.labels) == classes * TRAIN_IMAGES
    assert len(test.test.labels) == classes * TEST_IMAGES
    assert np.array_equal(test.train.images, validation.train.images)
    seen = {image.tobytes() for image in test.train.images}
    assert not seen & {image.tobytes() for image in test.test.images}
    held = {image.tobytes() for image in validation.test.images}
    assert not held & (seen | {image.tobytes() for image in test.test.images})
    assert test.sha256 != validation.sha256


def test_benchmarks_share_no_class():
    sets = [
        name for name in GLYPH_SETS if name != "glyphs-relief"
    ]  # that one shares the tuning classes
    names = [set(load_dataset(DataSpec(name=name), 32).classes) for name in sets]
    assert sum(map(len, names)) == len(set.union(*names))
