"""Broken files are named in one line and never used; an earlier state takes their place.

Nothing that is read can run.
"""

import dataclasses
import io
import json
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import cell_of
from fault_cell import files_of, process

from bench.backbone import vit as backbone
from bench.config.spec import BackboneSpec
from bench.data import datasets
from bench.engine import cell as cells
from bench.engine import run as engine
from bench.engine.align import TaskStatistics
from bench.engine.checkpoint import AfterTask, Position, WithinTask
from bench.errors import UsageError
from bench.store import formats
from bench.store.files import check_seal, load_array, write_sealed
from bench.store.rundir import RunDir


def flip(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


HARM = {
    "empty": lambda c: b"",
    "half": lambda c: c[: len(c) // 2],
    "flipped": flip,
    "longer": lambda c: c + b"x",
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["metrics.csv", "losses.csv", "state.json", "DONE"])
def test_a_finished_run_that_was_altered_is_named(harm, name, tiny_spec, run):
    _, folder = run(tiny_spec)
    file = folder / name
    file.write_bytes(HARM[harm](file.read_bytes()))
    if (name, harm) == ("DONE", "longer"):
        file.write_bytes(file.read_bytes().replace(b"a", b"b"))
    with pytest.raises(UsageError, match=r"altered since the run ended"):
        run(tiny_spec)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize(
    "names",
    [("within.pt",), ("task-2.pt",), ("task-2.pt", "task-1.pt"), ("task-1.pt", "within.pt")],
)
def test_a_broken_checkpoint_is_named_and_an_earlier_one_used(
    harm, names, tiny_spec, tmp_path, monkeypatch, undisturbed
):
    spec = cell_of(tiny_spec, "linear")
    # In the second epoch of the third task.
    assert process(spec, tmp_path, BENCH_CRASH_AT="step:11") == -signal.SIGKILL
    folder = RunDir.of(tmp_path, spec).path
    for name in names:
        file = folder / "ckpt" / name
        file.write_bytes(HARM[harm](file.read_bytes()))
    assert engine.run_cell(spec, tmp_path)["status"] == "done"
    log = (folder / "log.txt").read_text()
    used = {
        "task-1.pt": "task-2.pt" in names,
        "task-2.pt": True,
        "within.pt": "task-2.pt" not in names,
    }
    for name in names:
        assert (f"{name}: not used" in log) == used[name], (
            "an older state that nobody needs is not read"
        )
    assert files_of(tmp_path, spec) == undisturbed(spec)


def test_a_checkpoint_of_a_newer_format_or_of_another_name_is_named(
    tiny_spec, tmp_path, monkeypatch, undisturbed
):
    spec = cell_of(tiny_spec, "linear")
    monkeypatch.setattr(formats, "CHECKPOINT", 99)
    assert engine.run_cell(spec, tmp_path)["status"] == "done"
    monkeypatch.undo()
    folder = RunDir.of(tmp_path, spec).path
    (folder / "DONE").unlink()
    (folder / "ckpt" / "task-3.pt").write_bytes((folder / "ckpt" / "task-2.pt").read_bytes())
    assert engine.run_cell(spec, tmp_path)["status"] == "done"
    log = (folder / "log.txt").read_text()
    assert "task-3.pt: not used: torn or altered" in log
    expected = f"task-2.pt: not used: format 99, this version reads {formats.CHECKPOINT}"
    assert expected in log
    assert files_of(tmp_path, spec) == undisturbed(spec)


@pytest.mark.parametrize("harm", [*HARM, "foreign"])
def test_a_broken_cache_entry_is_named_and_made_again(
    harm, tiny_spec, tmp_path, monkeypatch, capfd, undisturbed
):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    spec = cell_of(tiny_spec, "dualprompt")
    assert engine.run_cell(replace(spec, method="other"), tmp_path)["status"] == "done"
    entries = sorted((tmp_path / "cache" / "queries").glob("*.npy"))
    contents = {file: file.read_bytes() for file in entries}
    assert len(entries) >= 3
    for file, other in zip(entries, [*entries[1:], entries[0]], strict=True):
        file.write_bytes(contents[other] if harm == "foreign" else HARM[harm](contents[file]))
    assert engine.run_cell(spec, tmp_path)["status"] == "done"
    assert capfd.readouterr().err.count("not used, made again") == len(entries)
    assert {file: file.read_bytes() for file in entries} == contents
    assert files_of(tmp_path, spec) == undisturbed(spec)


def test_the_fields_of_a_checkpoint_belong_to_its_format(tiny_spec, tmp_path):
    """If this fails, raise formats.CHECKPOINT, then write the new names and the number here."""
    fields = {kind: {f.name for f in dataclasses.fields(kind)} for kind in (AfterTask, WithinTask)}
    assert formats.CHECKPOINT == 6
    assert fields[AfterTask] == {"finished", "method", "stream", "tables", "facts"}
    assert fields[WithinTask] == {
        "finished",
        "method",
        "optimiser",
        "random",
        "stream",
        "position",
        "losses",
        "facts",
    }
    position = {"epoch", "step", "served", "seconds", "sums"}
    assert {f.name for f in dataclasses.fields(Position)} == position
    statistics = {"start", "stop", "means", "spread", "freedom"}
    assert {f.name for f in dataclasses.fields(TaskStatistics)} == statistics

    spec = cell_of(tiny_spec, "linear")
    assert process(spec, tmp_path, BENCH_CRASH_AT="step:11") == -signal.SIGKILL
    files = {"task-2.pt": AfterTask, "within.pt": WithinTask}
    for name, kind in files.items():
        file = RunDir.of(tmp_path, spec).path / "ckpt" / name
        content = torch.load(io.BytesIO(file.read_bytes()[: check_seal(file)]), weights_only=True)
        header = {"format", "spec_sha", "data_sha", "weights_sha", "precision"}
        assert content.keys() == header | fields[kind]
        plain = fields[kind] - {"method", "optimiser", "random"}
        assert all(isinstance(content[key], str) for key in plain), "JSON text"
    assert json.loads(content["position"]).keys() == position
    assert json.loads(content["facts"]).keys() <= {"gflops_train", "gflops_infer"}


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"status": 3}', "\xff"])
def test_a_broken_state_is_as_none(text, tiny_spec, run):
    _, folder = run(tiny_spec)
    expected = (folder / "metrics.csv").read_bytes()
    (folder / "DONE").unlink()
    (folder / "state.json").write_text(text, encoding="latin1")
    assert run(tiny_spec)[0]["status"] == "done"
    assert (folder / "metrics.csv").read_bytes() == expected


def test_a_checkpoint_of_other_images_is_not_used(tiny_spec, run, monkeypatch):
    _, folder = run(tiny_spec)
    (folder / "DONE").unlink()
    (folder / "state.json").unlink()
    source = datasets.source_of("glyphs")

    def inverted(spec, image_size):
        raw = source.load(spec, image_size)
        return replace(raw, train=(255 - raw.train[0], raw.train[1]))

    with monkeypatch.context() as patch:
        patch.setitem(datasets.SOURCES, "glyphs", replace(source, load=inverted))
        cells._dataset.cache_clear()
        run(tiny_spec)
    cells._dataset.cache_clear()
    assert "it was written with another data_sha" in (folder / "log.txt").read_text()


def test_altered_embedded_weights_are_named(tmp_path, monkeypatch):
    for suffix in (".safetensors", ".json"):
        file = backbone.GLYPH_WEIGHTS.with_suffix(suffix)
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = tmp_path / backbone.GLYPH_WEIGHTS.name
    monkeypatch.setattr(backbone, "GLYPH_WEIGHTS", copy)
    backbone.load_backbone(BackboneSpec())
    copy.write_bytes(flip(copy.read_bytes()))
    with pytest.raises(UsageError, match="altered"):
        backbone.load_backbone(BackboneSpec())
    copy.write_bytes(copy.read_bytes()[:5000])
    with pytest.raises(UsageError, match="cannot be read"):
        backbone.load_backbone(BackboneSpec())


# --- nothing that is read can run -------------------------------------------------------------


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_no_pickle_is_executed(tiny_spec, tmp_path, monkeypatch, capfd):
    marker = tmp_path / "marker"
    poison = Payload(marker)
    pickle.loads(pickle.dumps(poison)).close()
    assert marker.exists(), "the payload works"
    marker.unlink()

    for name in ("evil.pth", "evil.pt", "evil.bin"):
        torch.save({"cls_token": poison}, tmp_path / name)
        with pytest.raises(UsageError, match="cannot be read"):
            backbone.load_backbone(BackboneSpec(checkpoint=str(tmp_path / name)))
    np.savez(tmp_path / "evil.npz", **{"embedding/kernel": np.array([poison], dtype=object)})
    with pytest.raises(UsageError, match="cannot be read"):
        backbone.load_backbone(BackboneSpec(checkpoint=str(tmp_path / "evil.npz")))

    objects = np.array([poison], dtype=object)
    write_sealed(tmp_path / "evil.npy", lambda stream: np.save(stream, objects, allow_pickle=True))
    assert load_array(tmp_path / "evil.npy") is None

    spec = cell_of(tiny_spec, "linear")
    folder = RunDir.of(tmp_path, spec).path
    buffer = io.BytesIO()
    torch.save({"method": poison, "format": formats.CHECKPOINT, "spec_sha": spec.sha}, buffer)
    write_sealed(folder / "ckpt" / "task-1.pt", lambda stream: stream.write(buffer.getvalue()))
    assert engine.run_cell(spec, tmp_path)["status"] == "done"
    assert "task-1.pt: not used" in (folder / "log.txt").read_text()
    assert not marker.exists()
