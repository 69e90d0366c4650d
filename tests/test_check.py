"""The regression check: passes as it is, fails when a method is broken on purpose."""

import sys

import numpy as np
import pandas as pd
import pytest

from bench.check import __main__ as check
from bench.check import regression
from bench.cli import CHECK_FAILED, FINE
from bench.engine import run as engine
from bench.engine.cell import _backbone
from bench.paths import EXPECTED

ROWS = ("hlgp", "coda-prompt", "linear", "ncm", "linear-ncm")


@pytest.fixture
def in_this_process(monkeypatch, tmp_path, request):
    """Some cells of one benchmark run here instead of in workers, so that what the test breaks is
    broken for them.
    """
    rows = getattr(request, "param", ROWS)

    def run_here(pool, jobs, device):
        for cell in pool.cells:
            if cell.benchmark == "relief-1x20" and cell.method in rows:
                engine.run_cell(cell, pool.results)

    table = pd.read_csv(EXPECTED / "smoke.csv")
    kept = table[(table["benchmark"] == "relief-1x20") & table["method"].isin(rows)]
    kept.to_csv(tmp_path / "smoke.csv", index=False)
    monkeypatch.setattr(check, "EXPECTED", tmp_path)
    monkeypatch.setattr(regression, "run_local", run_here)
    monkeypatch.setattr(sys, "argv", ["check", "smoke"])


@pytest.mark.parametrize("in_this_process", [("linear", "ncm")], indirect=True)
def test_the_code_as_it_is_passes(in_this_process, capsys):
    assert check.main() == FINE, capsys.readouterr().out


def test_a_broken_backbone_is_caught(in_this_process, monkeypatch, capsys):
    """Prefixes silently not inserted: every method still trains its head and looks alive."""
    from bench.backbone import vit as backbone

    attend = backbone.attend
    monkeypatch.setattr(
        backbone, "attend", lambda attn, x, prefix, *rest: attend(attn, x, None, *rest)
    )
    _backbone.cache_clear()
    assert check.main() == CHECK_FAILED
    table = capsys.readouterr().out
    failed = {line.split("|")[2].strip() for line in table.splitlines() if "DIFFERS" in line}
    assert failed == {"hlgp", "coda-prompt"}, "what was broken, and nothing else"


def test_margins_come_from_the_spread():
    values = np.array([10.0, 12.0, 11.0, 13.0, 9.0, 11.0, 12.0, 10.0, 11.0, 11.0])
    measured = pd.DataFrame({"benchmark": "b", "method": "m", "metric": "faa", "value": values})
    row = regression.expect(measured, 1).iloc[0]
    assert row["expected"] == pytest.approx(11.0)
    assert row["margin"] == pytest.approx(3.6897 * values.std(ddof=1) * np.sqrt(1.1), rel=1e-3)
    table = regression.verdicts(
        measured.iloc[:1].assign(value=11.0 + row["margin"] * 1.01), regression.expect(measured, 1)
    )
    assert table["verdict"].tolist() == ["DIFFERS"]
    missing = regression.verdicts(measured.assign(method="other"), regression.expect(measured, 1))
    assert missing["verdict"].tolist() == ["missing"]


def test_expected_values_name_what_they_rest_on():
    table = pd.read_csv(EXPECTED / "smoke.csv")
    assert list(table.columns) == regression.COLUMNS
    assert (table["seeds"] >= 10).all()
    assert {"hlgp", "l2p", "dualprompt", "coda-prompt"} <= set(table["method"])
