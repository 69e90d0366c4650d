"""Wrong input: one clear line that says what, where and what would do; exit code 2; before anything
is trained.
"""

import importlib
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import cli
from bench.data.folder import decode_image, load_folder
from bench.errors import UsageError

PACKAGES = ("bench.report", "bench.data", "bench.check")
GRID = ("bench.grid", str(TINY), "--jobs", "1")  # each worker imports torch before it can refuse
WRONG = [
    (("bench.grid", "mimi"), "did you mean 'mini'"),
    (("bench.grid", "nowhere/suite.py"), "no file"),
    ((*GRID, "--methods", "hlpg"), "did you mean 'hlgp'"),
    ((*GRID, "--benchmarks", "glyph"), "did you mean 'glyphs'"),
    ((*GRID, "--order-seeds", "9"), "accepted: 1, 2"),
    ((*GRID, "--set", "train.epoch=3"), "did you mean 'epochs'"),
    ((*GRID, "--set", "train.epochs=three"), "int is expected"),
    ((*GRID, "--set", "train.epochs=0"), "at least 1"),
    ((*GRID, "--set", "train.optimiser=adan"), "did you mean 'adam'"),
    ((*GRID, "--set", "epochs=3"), "train.KEY"),
    ((*GRID, "--set", "train.epochs"), "KEY=VALUE"),
    ((*GRID, "--name", "reference"), "it holds the published results"),
    ((*GRID, "--set", "data.class_order=[1,2"), "a value that can be read"),
    (("bench.check", "--jobs", "-1"), "whole number from 1"),
    (("bench.check",), "required: SUITE"),
    ((*GRID, "--set", "methods.hlpg.model.groups=2"), "did you mean 'hlgp'"),
    ((*GRID, "--set", "methods.hlgp.model.group=2"), "did you mean 'groups'"),
    ((*GRID, "--set", "methods.hlgp.model.groups=5"), "does not divide"),
    ((*GRID, "--set", "methods.hlgp.model.groups=two"), "int is expected"),
    ((*GRID, "--set", "methods.hlgp.type=hlpg"), "did you mean 'hlgp'"),
    ((*GRID, "--set", "methods.hlgp.type.x=1"), "'type' has no keys"),
    ((*GRID, "--set", "methods.hlgp.model=3"), "a dict of its keys"),
    ((*GRID, "--set", "data.name=gliphs"), "did you mean 'glyphs'"),
    ((*GRID, "--set", "data.tasks=3"), "at most 2 tasks"),
    ((*GRID, "--set", "data.classes=61"), "has 60"),
    ((*GRID, "--set", "data.root=nowhere"), "not found"),
    ((*GRID, "--set", "backbone.name=vit_tini_patch16_224"), "did you mean"),
    ((*GRID, "--set", "backbone.checkpoint=none.pth"), "not found"),
    ((*GRID, "--set", "backbone.image_size=33"), "backbone"),
    ((*GRID, "--set", "train.head_lr=nan"), "a finite number is expected"),
    ((*GRID, "--set", "train.prompt_lr=-1"), "at least 0"),
    ((*GRID, "--set", "train.batch_size=0"), "at least 1"),
    ((*GRID, "--set", "train.precision=fp16"), "accepted: fp32, bf16, auto"),
    ((*GRID, "--set", "train.schedule=cosin"), "did you mean 'cosine'"),
    ((*GRID, "--set", "train.joint=maybe"), "bool is expected"),
    ((*GRID, "--set", "train.threads=0"), "at least 1"),
    ((*GRID, "--set", "data.crop_low=0"), "at least 0.01"),
    ((*GRID, "--set", "data.crop_low=1.5"), "at most 1.0"),
    ((*GRID, "--set", "data.class_order=[0,0,1,2]"), "each of 0..3 once"),
    ((*GRID, "--set", "data.class_order=[0,1]"), "each of 0..3 once"),
    ((*GRID, "--set", "data.order=codda"), "did you mean 'coda'"),
    ((*GRID, "--set", "data.crops_of=hole"), "did you mean 'whole'"),
    ((*GRID, "--set", "data.crops_of=whole"), "for data.name=folder"),
    ((*GRID, "--set", "backbone.normalise=imagenet"), "accepted: zero_one, timm"),
    ((*GRID, "--set", "methods.hlgp.model.weights=maen"), "did you mean 'mean'"),
    ((*GRID, "--set", "methods.hlgp.model.layers=[0,12]"), "model of hlgp"),
    ((*GRID, "--set", "methods.hlgp.model.length=0"), "model of hlgp"),
    ((*GRID, "--time-limit", "soon"), "a number above 0"),
    ((*GRID, "--rate", "5"), "for --dry-run"),
    (
        ("bench.run", str(TINY), "--method", "linear", "--benchmark", "glyphs", "--seed", "9"),
        "accepted: 1",
    ),
    (("bench.data", "cash"), "invalid choice"),
    ((*GRID, "--results", "/proc/none"), "cannot be written"),
    ((*GRID, "--jobs", "0"), "whole number from 1"),
    ((*GRID, "--shard", "3/2"), "are expected"),
    ((*GRID, "--device", "cuda:7"), "no usable GPU"),
    ((*GRID, "--device", "tpu"), "accepted: auto, cpu, cuda"),
    ((*GRID, "--launcher", "slurm", "--device", "cud"), "did you mean 'cuda'"),
    ((*GRID, "--shard", "1/0"), "1/1 to 1/1 are expected"),
    ((*GRID, "--status", "--collect"), "--status, --collect: give one of them"),
    ((*GRID, "--launcher", "print", "--jobs", "2"), "--jobs: not with --launcher print"),
    ((*GRID, "--launcher", "slurm", "--json"), "--json: not with --launcher slurm"),
    (
        (*GRID, "--status", "--json", "--device", "cpu"),
        "--json, --jobs, --device: not with --status",
    ),
    (
        (*GRID, "--collect", "--jobs", "2", "--time-limit", "3", "--scratch", "x"),
        "--time-limit, --jobs, --scratch: not with --collect",
    ),
    ((*GRID, "--dry-run", "--launcher", "slurm", "--sbatch", "--foo"), "--launcher, --sbatch: not"),
    (("bench.grid", "--list", "--set", "train.epochs=3"), "--set: not with --list"),
    (("bench.run", str(TINY), "--method", "hlgp"), "--benchmark: one of glyphs, glyphs-r"),
    (("bench.report", "mimi"), "unknown 'mimi'"),
    (("bench.check", str(TINY)), "no expected values"),
    ((*GRID, "--set", "train.head_lr=1e38"), "at most 1e+18"),
    ((*GRID, "--jobs", "²"), "whole number from 1"),
    (("bench.pretrain", "--batch", "0"), "whole number from 1"),
    (("bench.pretrain", "--threads", "0"), "whole number from 1"),
    (("bench.pretrain", "--seed", "-1"), "whole number from 0"),
    (("bench.pretrain", "--out", "missing/x"), "a .safetensors file is expected"),
    (("bench.pretrain", "--out", "/proc/none/x.safetensors"), "/proc/none: cannot be written"),
    (("bench.data.glyph_masks", "--out", "missing/x.npz"), "in a folder that is there"),
]


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """What a command says while it refuses its words with exit code 2: here, without another
    interpreter's start.
    """

    def go(module, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [module, *words])
        with pytest.raises(SystemExit) as ended:
            cli.run(
                importlib.import_module(f"{module}.__main__" if module in PACKAGES else module).main
            )
        said = capfd.readouterr().err
        assert ended.value.code == 2, said
        assert "Traceback" not in said
        return said

    return go


@pytest.mark.parametrize(
    ("words", "says"), WRONG, ids=[" ".join(w[2:]) or " ".join(w) for w, _ in WRONG]
)
def test_one_line_and_exit_code_2(words, says, refused, tmp_path):
    import torch

    if "cuda:7" in words and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = refused(*words)
    assert says in said
    if words[0] != "bench.data.glyph_masks":  # argparse's own, which says the usage first
        assert "usage:" not in said
        assert said.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("results/*/runs")), "nothing was started"


def test_the_nearest_option_is_named(refused):
    said = refused("bench.grid", "mini", "--order-seed", "1")
    assert "unrecognized arguments: --order-seed 1 (did you mean --order-seeds? " in said


@pytest.mark.parametrize(
    "module", ["run", "grid", "report", "check", "speed", "pretrain", "data", "data.glyph_masks"]
)
def test_help_everywhere(module, command):
    assert "usage" in command(f"bench.{module}", "--help", check=0).stdout


def test_half_a_cache_of_a_library_stops_nobody(command, tmp_path):
    """Of two first processes on a machine one may find the grammars that yapf, under mmengine, has
    not yet written.
    """
    subprocess.run(
        [sys.executable, "-c", "import yapf"],
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    grammars = list(tmp_path.rglob("*.pickle"))
    assert len(grammars) == 2
    for grammar in grammars:
        grammar.write_bytes(b"")
    command("bench.grid", "mini", "--dry-run", check=0, XDG_CACHE_HOME=str(tmp_path))


def test_pretraining_is_by_default_what_made_the_committed_weights(refused, monkeypatch):
    from bench import pretrain

    def stop(*given):
        raise UsageError(repr([*given[:4], torch.get_num_threads()]))

    import torch

    recipe = json.loads(pretrain.GLYPH_WEIGHTS.with_suffix(".json").read_text())
    monkeypatch.setattr(pretrain, "pretrain", stop)
    assert repr(
        [recipe[key] for key in ("steps", "batch", "seed", "precision", "threads")]
    ) in refused("bench.pretrain")


# --- folders of images
# ------------------------------------------------------------------------------------------------


def write_images(folder, count=2, size=(40, 30), mode="RGB", start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(start + number).integers(
            0, 256, (size[1], size[0], 3), dtype=np.uint8
        )
        Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")


def good_folder(root):
    for part in ("train", "test"):
        for name in ("a", "b", "c", "d"):
            write_images(root / part / name)
    return root


FOLDERS = [
    (lambda r: (r / "train" / "a" / "x.jpg").write_bytes(b"no image"), "not a readable image"),
    (lambda r: (r / "train" / "a" / "x.jpg").write_bytes(b""), "not a readable image"),
    (
        lambda r: Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(
            r / "train" / "a" / "x.png"
        ),
        "more than 8 bits",
    ),
    (lambda r: os.mkdir(os.fsencode(r / "train") + b"/\xff"), "no printable UTF-8 name"),
    (lambda r: [f.unlink() for f in (r / "test" / "b").iterdir()], "class 'b' has no images"),
    (lambda r: write_images(r / "test" / "z"), "class 'z' is in test but not in train"),
    (lambda r: write_images(r / "train" / "z"), "class 'z' is in train but not in test"),
    (lambda r: (r / "test").rename(r / "tset"), "'test' is missing"),
    (lambda r: (r / "train" / "a" / "x.jpg").symlink_to("x.jpg"), "x.jpg: cannot be read"),
    (lambda r: (r / "train" / "a" / "x.jpg").symlink_to("nowhere.jpg"), "x.jpg: cannot be read"),
    (lambda r: (r / "train" / "a" / "x.png").write_bytes(png(20_000, 20_000)), "DecompressionBomb"),
    (
        lambda r: (r / "train" / "a" / "x.png").write_bytes(png(9, 9, bits=16)),
        "mode RGB with more than 8 bits",
    ),
    (
        lambda r: (r / "train" / "a" / "x.png").write_bytes(png(9, 9, bits=16, kind=6)),
        "mode RGBA with more than 8 bits",
    ),
    (
        lambda r: (r / "train" / "a" / "x.tif").write_bytes(deep_tiff()),
        "mode RGB with more than 8 bits",
    ),
    (
        lambda r: (r / "train" / "a" / "x.ppm").write_bytes(b"P6 1 1 65535 " + bytes(6)),
        "mode RGB with more than 8 bits",
    ),
    (
        lambda r: Image.new("RGB", (1, 60_000)).save(r / "train" / "a" / "x.png"),
        "1 x 60000 pixels would be resized",
    ),
    (
        lambda r: Image.new("RGB", (60_000, 1)).save(r / "train" / "a" / "x.png"),
        "60000 x 1 pixels would be resized",
    ),
    (lambda r: (r / "train" / "e").symlink_to("nowhere"), "e: a link that leads nowhere"),
    (lambda r: (r / "train" / "e").symlink_to("e"), "e: a link that leads nowhere"),
    (lambda r: os.mkfifo(r / "train" / "a" / "x.png"), "x.png: not a regular file"),
    (
        lambda r: (r / "train" / "a" / "0.png").write_bytes(
            (r / "train" / "a" / "0.png").read_bytes()[:200]
        ),
        "a readable image",
    ),
    (
        lambda r: Image.fromarray(np.zeros((9, 9), np.float32)).save(r / "train" / "a" / "x.tif"),
        "more than 8 bits",
    ),
    (lambda r: [f.rename(r.parent / f.name) for f in r.iterdir()], "at least two class folders"),
]


def png(width, height, bits=8, kind=2):
    """A PNG of some bytes that says it has so many pixels; its data are left out."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 9) + b"IDAT"


def deep_tiff():
    """A TIFF of one RGB pixel with 16 bits a channel."""
    tags = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 3, 134),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 140),
        (277, 3, 1, 3),
        (278, 3, 1, 1),
        (279, 4, 1, 6),
        (284, 3, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + entries
        + bytes(4)
        + struct.pack("<6H", 16, 16, 16, 1, 2, 3)
    )


def test_unusual_images_are_taken_as_documented(tmp_path, capsys):
    """Grey, palette, CMYK, alpha, animated, one pixel; and what is in both parts is counted."""
    root = good_folder(tmp_path / "pictures")
    colour = Image.new("RGB", (12, 12), (200, 10, 30))
    kinds = {
        "grey.png": colour.convert("L"),
        "palette.png": colour.convert("P"),
        "cmyk.jpg": colour.convert("CMYK"),
        "alpha.png": colour.convert("RGBA"),
        "one.png": colour.resize((1, 1)),
        "bw.png": colour.convert("1"),
    }
    for name, image in kinds.items():
        image.save(root / "train" / "a" / name)
    (root / "train" / "a" / "few.ppm").write_bytes(b"P6 1 1 100 " + bytes([78, 4, 12]))
    (root / "train" / "a" / "plain.ppm").write_bytes(b"P1 1 1 0 ")
    kinds |= {"few.ppm": colour, "plain.ppm": colour}
    colour.save(
        root / "train" / "a" / "moving.gif",
        save_all=True,
        append_images=[Image.new("RGB", (12, 12))],
    )
    names, (images, labels), _ = load_folder(root, 16)
    assert names == ("a", "b", "c", "d")
    assert images.shape == (8 + len(kinds) + 1, 16, 16, 3)
    assert np.bincount(labels).tolist() == [2 + len(kinds) + 1, 2, 2, 2]
    listed = sorted(f.name for f in (root / "train" / "a").iterdir())
    for name in ("palette.png", "cmyk.jpg", "alpha.png", "one.png", "moving.gif"):
        pixel = images[listed.index(name)].astype(int).mean(axis=(0, 1))
        assert np.abs(pixel - (200, 10, 30)).max() < 20, name
    assert "8 test images are in train too" in capsys.readouterr().err


@pytest.mark.parametrize(("breaks", "says"), FOLDERS, ids=[says for _, says in FOLDERS])
def test_broken_folders_are_named(breaks, says, tmp_path):
    root = good_folder(tmp_path / "pictures")
    breaks(root)
    with pytest.raises(UsageError) as said:
        load_folder(root, 96)
    assert says in str(said.value)
    assert "\n" not in str(said.value)


def test_a_broken_folder_is_named_by_the_grid(refused, tmp_path):
    root = good_folder(tmp_path / "pictures")
    (root / "train" / "a" / "x.jpg").write_bytes(b"no image")
    said = refused(*GRID, "--set", f"data.root={root}", "data.classes=4")
    assert "x.jpg: not a readable image" in said


@given(
    where=st.floats(0, 1),
    what=st.binary(max_size=8),
    cut=st.integers(0, 64),
    kind=st.sampled_from(["PNG", "JPEG", "GIF"]),
)
def test_a_damaged_image_is_decoded_or_refused_in_one_line(
    where, what, cut, kind, tmp_path_factory
):
    file = tmp_path_factory.mktemp("i") / "x.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
        file, kind
    )
    content = file.read_bytes()
    at = int(where * len(content))
    file.write_bytes(content[:at] + what + content[at + cut :])
    try:
        assert decode_image(file, 8).shape == (8, 8, 3)
        return
    except UsageError as error:
        said = str(error)
    assert said.startswith(f"{file}: not a readable image")
    assert "\n" not in said
