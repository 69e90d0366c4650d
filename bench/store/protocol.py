"""What each row of the tables was run with: every setting by its name, in protocol.csv."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from bench.config.spec import SECTIONS, RunSpec
from bench.store.tables import Rows


def protocol(cells: Iterable[RunSpec], states: list[dict[str, Any]]) -> Rows:
    """What each row of the tables was run with, resolved: one line per benchmark, method and key (the same for all seeds)."""
    rows: Rows = []
    seen = set()
    for spec, run in zip(cells, states, strict=True):
        if (spec.benchmark, spec.method) in seen:
            continue
        seen.add((spec.benchmark, spec.method))
        rows += [
            {"benchmark": spec.benchmark, "method": spec.method, "key": k, "value": v}
            for k, v in protocol_of(spec, run).items()
        ]
    return rows


def protocol_of(spec: RunSpec, run: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a cell by its name. run: what its files turned out to be, as far as that is known."""
    source = {"": "embedded" if spec.backbone.name == "vit_glyphs" else "timm", "random": "random"}
    values = {
        "type": spec.type,
        "precision used": run.get("precision", ""),
        "weights": run.get("weights_sha", "")[:12],
    }
    values["weights from"] = source.get(spec.backbone.checkpoint, "a file")
    for section in SECTIONS:
        values |= {
            f"{section}.{key}": value
            for key, value in dataclasses.asdict(getattr(spec, section)).items()
        }
    del (
        values["data.root"],
        values["backbone.checkpoint"],
    )  # where files lie is no part of a protocol; their digests are
    if spec.backbone.name not in ("vit", "vit_glyphs"):  # a network of timm's has its own sizes
        for key in ("patch", "width", "depth", "heads"):
            del values[f"backbone.{key}"]
    model = run.get("model", spec.model)
    values |= {f"model.{key}": value for key, value in model.items()}
    mixed = str(model.get("reference_bug")) == "True" and spec.type == "dualprompt"
    values["selection of prompts at test"] = (
        "prompts of different images mixed" if mixed else "per image, task unknown"
    )
    return values
