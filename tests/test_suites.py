"""Suites and `--set`: valid, or refused in one line that names the file or the key."""

import argparse
import importlib
import sys

import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from bench.config.arguments import add_suite_arguments
from bench.config.spec import BackboneSpec, DataSpec, TrainSpec, make
from bench.config.suite import load_suite, suite_names
from bench.errors import UsageError
from bench.launch.listing import suite_list
from bench.method import method_class

anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())
)


@pytest.mark.parametrize("cls", [DataSpec, BackboneSpec, TrainSpec])
@given(data=st.data())
def test_a_section_is_valid_or_refused_in_one_line(cls, data):
    keys = st.sampled_from(list(cls.__dataclass_fields__)) | st.text()
    values = data.draw(st.dictionaries(keys, anything, max_size=4))
    try:
        section = make(cls, values, "section")
    except UsageError as error:
        said = str(error)
    else:
        for key, value in values.items():
            taken = getattr(section, key)
            assert taken == (type(taken)(value) if isinstance(taken, float | tuple) else value)
        return
    assert said.startswith("section")


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_is_valid(name):
    cells = load_suite(name).cells
    assert len({cell.run_id for cell in cells}) == len(cells) > 0
    assert all(method_class(cell.type) for cell in cells)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("\n@register\nclass Mine: ...\n", "line 2: NameError: name 'register' is not defined"),
        ("class Mine(:\n", "line 1: SyntaxError: "),
        ("import nowhere\n", "line 1: ModuleNotFoundError: "),
        ("one = 1\n", "registers no method"),
    ],
)
def test_a_method_that_cannot_be_imported_is_named(source, says, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.setattr(importlib.import_module("methods"), "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "methods.mine", raising=False)
    with pytest.raises(UsageError, match=f"methods/mine.py.*{says}"):
        method_class("mine")


def test_overridden_cells_get_a_folder_of_their_own():
    plain = load_suite(str(TINY))
    changed = load_suite(str(TINY), {"train.epochs": 2})
    assert changed.name.startswith("tiny_suite-")
    assert {c.run_id for c in plain.cells}.isdisjoint(c.run_id for c in changed.cells)
    assert load_suite(str(TINY), {"train.epochs": 2}, "mine").name == "mine"


def test_paths_are_no_part_of_the_identity(tmp_path):
    one = load_suite(str(TINY), {"data.root": str(tmp_path / "x" / "pictures")}, "n").cells[0]
    two = load_suite(str(TINY), {"data.root": str(tmp_path / "y" / "pictures")}, "n").cells[0]
    assert one.benchmark == "pictures"
    assert one.run_id == two.run_id


def test_the_users_data_are_the_benchmark(tmp_path):
    assert {c.benchmark for c in load_suite(str(TINY), {"data.name": "digits"}).cells} == {"digits"}
    folder = tmp_path / "_Bilder, neu ü"
    assert {c.benchmark for c in load_suite(str(TINY), {"data.root": str(folder)}).cells} == {
        "Bilder_neu_"
    }


def test_a_fixed_order_is_no_replicate():
    assert {c.order_seed for c in load_suite(str(TINY), {"data.order": "natural"}).cells} == {1}
    assert {
        c.order_seed for c in load_suite(str(TINY), {"data.class_order": [1, 0, 3, 2]}).cells
    } == {1}


def test_other_files_for_a_suite_on_disk(tmp_path):
    root = {"data.root": str(tmp_path / "mine")}
    assert {c.benchmark for c in load_suite("imagenet_r_coda", root).cells} == {
        f"mine-imagenet-r-{n}" for n in (5, 10, 20)
    }
    (cifar,) = {(c.benchmark, c.data.name) for c in load_suite("cifar100_coda", root).cells}
    assert cifar == ("mine", "cifar100")


def test_paths_are_taken_as_they_stand():
    parser = argparse.ArgumentParser()
    add_suite_arguments(parser)
    words = [
        "mini",
        "--set",
        "data.root=/a b/c, d",
        "backbone.checkpoint=1e3",
        "data.class_order=2,0,1",
        "train.epochs=3",
    ]
    words += ["data.split=2024"]
    assert parser.parse_args(words).overrides == {
        "data.root": "/a b/c, d",
        "backbone.checkpoint": "1e3",
        "data.class_order": [2, 0, 1],
        "train.epochs": 3,
        "data.split": "2024",
    }


def test_an_explicit_class_order_from_a_file(tmp_path):
    file = tmp_path / "order.txt"
    file.write_text("[3, 1,\n0 2]\n")
    spec = load_suite(str(TINY), {"data.class_order": str(file)}).cells[0].data
    assert spec.class_order == (3, 1, 0, 2)
    for words in (
        "3 one",
        "",
        "[]\n",
    ):  # an empty one would be no order, and the suite's own would be run
        file.write_text(words)
        with pytest.raises(UsageError, match="whole numbers"):
            load_suite(str(TINY), {"data.class_order": str(file)})


def test_seeds_are_different_whole_numbers(tmp_path):
    file = tmp_path / "bad.py"
    for key in ("seeds", "order_seeds"):
        for seeds in (
            "[1, 1]",
            "[-1]",
            "[1.5]",
            "[]",
            "3",
            "[True]",
            "[2**32]",
            "[2**70]",
        ):  # numpy's seeds end there
            file.write_text(TINY.read_text() + f"\n{key} = {seeds}\n")
            with pytest.raises(UsageError, match="different whole numbers"):
                load_suite(str(file))


def test_every_suite_begins_with_a_sentence():
    docs = {name: load_suite(name).doc for name in suite_names()}
    assert all(doc.endswith((".", "?")) and len(doc) < 200 for doc in docs.values())
    assert docs["mini"].startswith("The embedded benchmarks")
    assert docs["imagenet_r_pilot"].startswith("Split ImageNet-R (Hendrycks et al. 2021), 10 tasks")


def test_the_list_has_every_suite_with_its_time():
    lines = suite_list().splitlines()
    assert {line.split()[0] for line in lines[2:-1]} == set(suite_names())
    times = {line.split()[0]: line.split()[2:4] for line in lines[2:-1]}
    assert times["mini"][1] == times["ablation"][1] == "min"
    assert times["cub200_pilot"][1] == "PFLOP"


def test_what_the_report_of_a_suite_shows(tmp_path):
    mini, ablation = load_suite("mini"), load_suite("ablation")
    assert (mini.reference, mini.beside) == ("hlgp", ("references",))
    assert {"hlgp", "caprompt"} < set(mini.figure_rows)
    assert ablation.beside == (), "it does not inherit that of mini"
    assert ablation.figure_rows == ("hlgp", "generator@*", "groups@*")
    file = tmp_path / "mine.py"
    file.write_text(TINY.read_text())
    assert load_suite(str(file)).reference == "linear", "the first row"
    assert load_suite(str(file)).doc == "A suite of seconds for the tests."
    for line, says in (
        ("reference = 'hlpg'", "reference: unknown 'hlpg'; did you mean 'hlgp'"),
        ("beside = 'mini'", "beside='mini': a list of names"),
        ("figure_rows = [1]", r"figure_rows=\[1\]: a list of names"),
    ):
        file.write_text(f"{TINY.read_text()}\n{line}\n")
        with pytest.raises(UsageError, match=f"mine.py: {says}"):
            load_suite(str(file))


def test_a_suite_with_a_mistake_names_its_file(tmp_path):
    for text, says in (
        ("x = 1/0", "ZeroDivisionError"),
        ("metods = {}", "did you mean 'methods'"),
        ("", "non-empty"),
    ):
        file = tmp_path / "bad.py"
        file.write_text(text)
        with pytest.raises(UsageError, match=says):
            load_suite(str(file))


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("methods = {1: dict(type='linear')}", {}, "methods: '1' is no usable name"),
        (
            "methods = {1: dict(type='linear')}",
            {"methods.x.model.y": 1},
            "methods: '1' is no usable name",
        ),
        (
            "methods = dict(linear=None)",
            {"methods.linear.model.x": 1},
            "methods.linear=None: a dict is expected",
        ),
        ("methods = dict(linear=dict(type=5))", {}, "methods.linear.type=5: a method's name"),
        ("methods = dict(linear=dict(model=dict(a={1, 2})))", {}, "names, numbers and lists"),
        (
            "benchmarks = dict(glyphs=5)",
            {"benchmarks.glyphs.data.name": "x"},
            "benchmarks.glyphs=5: a dict is expected",
        ),
        ("data = 5", {"data.root": "x"}, "data=5: a dict is expected"),
    ],
)
def test_a_suite_whose_values_are_of_another_kind(text, overrides, says, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(f"{TINY.read_text()}\n{text}\n")
    with pytest.raises(UsageError, match=says):
        load_suite(str(file), overrides)
