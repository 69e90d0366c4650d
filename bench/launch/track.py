"""Losses and accuracies of a run in a tracker, through mmengine's back ends of its Visualizer.

A tracker never stops a run and never holds it up: a thread of its own sends what the run says, and
a failure ends the tracking with one line.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

from bench.config.spec import RunSpec, plain
from bench.errors import UsageError
from bench.store.locks import locked

TRACKERS = ("tensorboard", "wandb", "mlflow")  # extras of the same names in pyproject.toml
MAX_CLOSING_SECONDS = 20.0
MAX_WAITING_EVENTS = 1000  # further ones are dropped
Event = dict[str, Any]  # as in bench/engine/task.py


def require_tracker(name: str) -> None:
    """Raises UsageError where the tracker's package is not installed."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"--track {name}: {error} (pip install 'hlgp-bench[{name}]')") from error


def back_end(name: str, folder: Path, spec: RunSpec) -> Any:
    """The Visualizer back end of one cell, which writes below the folder unless it sends."""
    from mmengine.visualization import MLflowVisBackend, TensorboardVisBackend, WandbVisBackend

    if name == "tensorboard":
        return TensorboardVisBackend(str(folder / spec.run_id))
    if name == "wandb":
        settings = {"project": spec.suite, "name": spec.run_id, "config": plain(spec)}
        return WandbVisBackend(str(folder), init_kwargs=settings)
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"
    return MLflowVisBackend(
        str(folder),
        exp_name=spec.suite,
        run_name=spec.run_id,
        params={"spec": spec.canonical()},
        tracking_uri=address,
    )


class Tracker:
    """Sends the events of one run from a thread of its own; a context manager."""

    def __init__(self, name: str, results: Path, spec: RunSpec) -> None:
        self.name, self.spec = name, spec
        self.folder = results / spec.suite / name
        self.events: queue.Queue[Event | None] = queue.Queue(MAX_WAITING_EVENTS)
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Tracker:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(queue.Full):
            self.events.put_nowait(None)
        self.thread.join(MAX_CLOSING_SECONDS)

    def tell(self, event: Event) -> None:
        """Pass on an event of the run; it is dropped where the tracker does not keep up."""
        with contextlib.suppress(queue.Full):
            self.events.put_nowait(event)

    def _work(self) -> None:
        try:
            self._send()
        except Exception as error:  # a tracker raises many kinds
            reason = (str(error).splitlines() or [""])[0]
            print(
                f"--track {self.name}: ended for {self.spec.run_id}: "
                f"{type(error).__name__}: {reason}",
                file=sys.stderr,
                flush=True,
            )

    def _send(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        self.folder.mkdir(parents=True, exist_ok=True)
        sink = back_end(self.name, self.folder, self.spec)
        with locked(self.folder / ".lock"):  # of two cells that begin at once one makes the files
            experiment = sink.experiment
        while (event := self.events.get()) is not None:
            scalars, step = scalars_of(event)
            if scalars:
                sink.add_scalars(scalars, step)
        if self.name == "mlflow":
            experiment.end_run()  # close() would also copy a work folder, which runs here have not
        else:
            sink.close()


def scalars_of(event: Event) -> tuple[dict[str, float], int]:
    """The numbers of an event, and their step: epochs since the first task began."""
    if "average_accuracy" in event:
        return {"average_accuracy": event["average_accuracy"]}, event["task"]
    if "epoch" not in event:
        return {}, 0
    losses = {f"loss/{name}": value for name, value in event["losses"].items()}
    speed = {"images_per_second": event["images_per_second"]}
    return losses | speed, (event["task"] - 1) * event["epochs"] + event["epoch"]
