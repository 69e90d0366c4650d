"""What each row of the tables was run with: every setting by its name (protocol.csv)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from bench.config.spec import TRAINED, RunSpec
from bench.store.tables import Rows

SELECTION = "selection of prompts at test"
OWN_SIZES = ("vit", "vit_glyphs")  # networks whose sizes are settings; timm's bring their own
SIZES = ("patch", "width", "depth", "heads")


def protocol(cells: Iterable[RunSpec], states: Iterable[dict[str, Any]]) -> Rows:
    """The rows of protocol.csv: one per benchmark, method and key, the same for all seeds.

    states: what each cell's files turned out to be; {} where that is not known.
    """
    rows: Rows = []
    seen = set()
    for spec, state in zip(cells, states, strict=True):
        row = {"benchmark": spec.benchmark, "method": spec.method}
        if tuple(row.values()) in seen:
            continue
        seen.add(tuple(row.values()))
        rows += [row | {"key": k, "value": v} for k, v in protocol_of(spec, state).items()]
    return rows


def protocol_of(spec: RunSpec, state: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a cell by its name. state: its digests and resolved settings, if known.

    Paths are left out: the digests say what the files held.
    """
    values = {
        "type": spec.type,
        "precision used": state.get("precision", ""),
        "weights": state.get("weights_sha", "")[:12],
        "weights from": weights_source(spec),
    }
    for section in TRAINED:
        settings = dataclasses.asdict(getattr(spec, section))
        values |= {f"{section}.{key}": value for key, value in settings.items()}
    del values["data.root"], values["backbone.checkpoint"]
    if spec.backbone.name not in OWN_SIZES:
        for key in SIZES:
            del values[f"backbone.{key}"]
    # What ended before there were aligned heads, or has no head, has no settings of one.
    asked = {} if state.get("status") == "done" else dataclasses.asdict(spec.align)
    values |= {f"align.{key}": value for key, value in state.get("align", asked).items()}
    values |= {f"model.{key}": value for key, value in state.get("model", spec.model).items()}
    values[SELECTION] = state.get("selection", "per image, task unknown")
    return values


def weights_source(spec: RunSpec) -> str:
    """embedded, timm, random, or a file."""
    if spec.backbone.checkpoint:
        return "random" if spec.backbone.checkpoint == "random" else "a file"
    return "embedded" if spec.backbone.name == "vit_glyphs" else "timm"
