"""The abstract's claims: tested in pairs, and only where they can be decided."""

import re
from dataclasses import replace

import numpy as np
import pytest
from paper_tables import write_results

from bench.check import claims
from bench.check.protocol import gather
from bench.errors import UsageError


def by_claim(folder, suite="cifar100_pilot"):
    rows = claims.claimed(*gather(suite, folder))
    return {(row["method"].split(" against ")[1], row["metric"]): row for row in rows}


def test_claims_are_tested_in_pairs(tmp_path):
    luck = np.array([0.0, 5.0, -3.0, 2.0, 8.0])  # of the orders: common to the pairs, so it cancels
    better = np.array([1.0, 1.2, 0.9, 1.1, 1.0])
    folder = write_results(
        tmp_path,
        {
            "hlgp": [*(80 + luck + better)],
            "l2p": [*(80 + luck)],
            "dualprompt": [*(82.5 + luck + better)],
            "coda-prompt": [*(80 + luck + better + [3, -3, 2, -2, 1])],
            "hlgp-independent": [*(80 + luck)],
        },
        "cifar100_pilot",
        drift={"hlgp": 0.01, "hlgp-independent": 0.03},
    )
    rows = by_claim(folder)
    assert rows["l2p", "faa"]["verdict"] == "reproduced"
    assert rows["l2p", "faa"]["difference"].startswith("+1.04")
    assert rows["dualprompt", "faa"]["verdict"] == "differs"
    assert rows["coda-prompt", "faa"]["verdict"] == "inconclusive"
    assert re.fullmatch(r"needs n=\d+", rows["coda-prompt", "faa"]["detail"])
    assert rows["hlgp-independent", "feature_drift"]["verdict"] == "reproduced"
    assert rows["hlgp-independent", "feature_drift"]["measured"] == "0.1300", (
        "of the last row: what the head reads"
    )


def test_more_drift_than_the_control_is_said(tmp_path):
    accuracies = {"hlgp": [80.0, 81.0, 82.0], "hlgp-independent": [80.0, 81.0, 82.0]}
    folder = write_results(
        tmp_path, accuracies, "cifar100_pilot", drift={"hlgp": 0.03, "hlgp-independent": 0.01}
    )
    assert by_claim(folder)["hlgp-independent", "feature_drift"]["verdict"] == "differs"
    assert by_claim(folder)["l2p", "faa"]["verdict"] == "missing"


def test_drift_is_not_compared_where_prompts_moved_unlike_distances(tmp_path):
    accuracies = {"hlgp": [80.0, 81.0, 82.0], "hlgp-independent": [80.0, 81.0, 82.0]}
    drift, moved = {"hlgp": 0.01, "hlgp-independent": 0.03}, {"hlgp": 0.1, "hlgp-independent": 0.3}
    folder = write_results(tmp_path, accuracies, "cifar100_pilot", drift=drift, moved=moved)
    row = by_claim(folder)["hlgp-independent", "feature_drift"]
    assert (row["verdict"], row["detail"]) == (
        "not comparable",
        "prompts moved unlike distances a task: 0.1 and 0.3 (RMS)",
    )


def test_two_pairs_decide_no_claim(tmp_path):
    folder = write_results(tmp_path, {"hlgp": [80.0, 81.0], "l2p": [70.0, 71.0]}, "cifar100_pilot")
    assert by_claim(folder)["l2p", "faa"]["verdict"] == "inconclusive"


def test_claims_are_not_tested_at_another_scale(tmp_path):
    def change(spec):
        return replace(
            spec,
            data=replace(spec.data, classes=20),
            backbone=replace(spec.backbone, name="vit_small_patch14_dinov2"),
        )

    folder = write_results(
        tmp_path, {"hlgp": [80.0, 81.0], "l2p": [70.0, 71.0]}, "cifar100_pilot", change=change
    )
    row = by_claim(folder)["l2p", "faa"]
    assert row["verdict"] == "not comparable"
    assert "data.classes: 20" in row["detail"]
    assert "backbone.name: vit_small_patch14_dinov2" in row["detail"]


def test_results_without_a_protocol_are_refused(tmp_path):
    folder = write_results(tmp_path / "mine", {"hlgp": [80.0]})
    (folder / "protocol.csv").unlink()
    with pytest.raises(UsageError, match=r"protocol\.csv: not there"):
        gather("mine", folder)


def test_a_claim_is_not_decided_on_a_part_of_the_test_images(tmp_path):
    folder = write_results(
        tmp_path, {"hlgp": [90.0] * 5, "l2p": [80.0] * 5}, "cifar100_pilot", images=100
    )
    row = by_claim(folder)["l2p", "faa"]
    assert row["verdict"] == "not comparable"
    assert row["detail"] == "test images: 1000, the dataset has 10000"
