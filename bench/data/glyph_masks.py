"""Build the committed glyph masks: `python -m bench.data.glyph_masks`.

Twelve DejaVu faces come with matplotlib. Every code point that all twelve have is drawn once per
face as a 32x32 coverage mask. Blanks, combining marks and near-identical shapes are dropped. The
rest is divided into classes for pretraining, for the benchmarks and for tuning; a letter and its
accented forms are in the same part.

The result is committed (`bench/assets/glyphs.npz`), because another FreeType draws other pixels.
The benchmark reads the committed masks only. This command made them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench import cli
from bench.errors import UsageError
from bench.store.files import write_atomic

FACES = tuple(
    f"DejaVu{family}{style}"
    for family, styles in (
        ("Sans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("SansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("Serif", ("", "-Bold", "-Italic", "-BoldItalic")),
    )
    for style in styles
)
SIDE = 32  # pixels of a mask
GLYPH_SIDE = 26  # pixels of the glyph's longer side within the mask
MIN_SAME_COSINE = 0.92  # from this cosine of two bitmaps on, they are one shape
FONT_SIZE = 96  # pixels, before the antialiased reduction to GLYPH_SIDE
BENCHMARK_SETS = 4
BENCHMARK_CLASSES = 60  # per benchmark
PRETRAIN_CLASSES = 1000
# The largest family in a benchmark. With forty accented a's it would test accents only.
MAX_BENCHMARK_FAMILY = 6


def font_files() -> list[Path]:
    """The twelve faces as matplotlib ships them."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{face}.ttf" for face in FACES]


def base_letter(code: int) -> str:
    """The letter without its accents. Siblings (a, A, á, ⱥ) share it and so stay in one part."""
    char = unicodedata.normalize("NFKD", chr(code))[0]
    name = unicodedata.name(char, "")
    if " WITH " in name:  # strokes, hooks and tails do not decompose
        with contextlib.suppress(KeyError):
            char = unicodedata.lookup(name.split(" WITH ")[0])
    return char.casefold()[0]


def draw(font: ImageFont.FreeTypeFont, code: int) -> np.ndarray | None:
    """One glyph as (SIDE, SIDE) uint8, or None if it is blank.

    Its bounding box is centred, and its longer side is scaled to GLYPH_SIDE.
    """
    canvas = Image.new("L", (4 * FONT_SIZE, 4 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((FONT_SIZE, FONT_SIZE), chr(code), font=font, fill=255)
    box = canvas.getbbox()
    if box is None:
        return None
    glyph = canvas.crop(box)
    scale = GLYPH_SIDE / max(glyph.size)
    size = (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale)))
    glyph = glyph.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(glyph, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(mask)


def candidates() -> list[int]:
    """Code points that all faces have and that are neither blank nor combining."""
    from matplotlib.ft2font import FT2Font

    common = set.intersection(*(set(FT2Font(str(file)).get_charmap()) for file in font_files()))
    return sorted(c for c in common if unicodedata.category(chr(c))[0] not in "ZCM")


def distinct(masks: np.ndarray) -> np.ndarray:
    """Indices of the classes to keep. A class like an earlier kept one is dropped.

    masks: (C, faces, S, S).
    """
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    same = flat @ flat.T >= MIN_SAME_COSINE
    kept: list[int] = []
    for index in range(len(masks)):
        if not same[index, kept].any():
            kept.append(index)
    return np.array(kept)


def divide(codes: np.ndarray) -> np.ndarray:
    """The part of each class: 0 pretrain, 1..4 the benchmarks, 5 tune.

    A family (one base letter) stays in one part. Families are dealt out by size, then by hash. Each
    goes to the part with the largest share of its room left, so all parts mix scripts in the same
    way.
    """
    families: dict[str, list[int]] = {}
    for index, code in enumerate(codes):
        families.setdefault(base_letter(int(code)), []).append(index)
    order = sorted(families, key=lambda base: hashlib.sha256(base.encode()).digest())
    # Large families first, while every part has room. The sort is stable.
    order.sort(key=lambda base: -len(families[base]))
    target = np.array([PRETRAIN_CLASSES] + [BENCHMARK_CLASSES] * BENCHMARK_SETS + [0])
    target[-1] = len(codes) - target.sum()
    room = target.copy()
    part = np.full(len(codes), -1)
    for base in order:
        size = len(families[base])
        fits = np.where(room >= size, room / target, -1.0)
        if size > MAX_BENCHMARK_FAMILY:
            fits[1:-1] = -1.0
        best = int(np.argmax(fits))
        assert fits[best] >= 0, f"no part has room for the family of {base!r}"
        part[families[base]] = best
        room[best] -= size
    return part.astype(np.uint8)


def build() -> dict[str, np.ndarray]:
    """All arrays of the asset: codes (C,), part (C,), masks (C, faces, S, S/2).

    A byte of masks holds two pixels of 4 bits.
    """
    fonts = [ImageFont.truetype(str(file), FONT_SIZE) for file in font_files()]
    codes, masks = [], []
    for code in candidates():
        drawn = [draw(font, code) for font in fonts]
        if all(mask is not None for mask in drawn):
            codes.append(code)
            masks.append(np.stack([m for m in drawn if m is not None]))
    stacked = np.stack(masks)
    kept = distinct(stacked)
    levels = (stacked[kept].astype(np.uint16) * 15 + 127) // 255
    packed = (levels[..., 0::2] << 4 | levels[..., 1::2]).astype(np.uint8)
    chosen = np.array(codes, dtype=np.uint32)[kept]
    return {"codes": chosen, "part": divide(chosen), "masks": packed}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.data.glyph_masks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--out", type=cli.folder, default=Path(__file__).parent.parent / "assets" / "glyphs.npz"
    )
    out = parser.parse_args().out
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise UsageError(f"--out={out}: a .npz file in a folder that is there is expected")
    arrays = build()
    write_atomic(out, lambda stream: np.savez_compressed(stream, **arrays))  # type: ignore[arg-type]
    print(f"{out}: {len(arrays['codes'])} classes, parts {np.bincount(arrays['part']).tolist()}")
    print(f"sha256 of the contents: {contents_digest(arrays)}")
    return cli.FINE


def contents_digest(arrays: dict[str, np.ndarray]) -> str:
    """sha256 over the arrays' bytes (not the zip container, whose time stamps vary)."""
    digest = hashlib.sha256()
    for name in ("codes", "part", "masks"):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    cli.run(main)
