"""Steps of every method against the floor, in one process: `python -m bench.speed`.

1.00x is a plain forward pass of the timm network. The floor of a training step is a forward pass and the backward pass through
activations only, with one prompt row in the first block. Everything is measured interleaved, best of several; CPU seconds of
this process on a CPU, events on a GPU. Warm: query features come from the cache; cold: the step computes them itself.
Views: the random crops of a batch, resized and mirrored; input: the boxes drawn as well, and the pixels normalised. tflops:
10^12 FLOP/s, what `--rate` of a dry run takes. kept_mib: what a step keeps for its backward pass; peak_mib: the most that lies
on a GPU during a step beside what lies there before.
Weights are random: speed does not depend on them, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import cli
from bench.backbone.vit import FrozenViT, load_backbone
from bench.config.spec import BackboneSpec, TrainSpec, make
from bench.data.views import Views, resample, resample_on_device, training_views
from bench.engine.task import build_optimiser
from bench.errors import UsageError
from bench.hardware import choose_device, processor_name, set_arithmetic
from bench.method import Method, Task, build_method, method_names
from bench.report.tables import markdown
from bench.store.tables import Rows, write_csv

CLASSES = 100
SHORT = 10  # tries in a row of a step of less than 20 ms
COLUMNS = ("device", "precision", "tasks", "step", "ratio", "ms", "images_per_second", "gflops_per_image", "tflops",
           "share_of_matmul", "kept_mib", "peak_mib")  # fmt: skip
Step = Callable[[], object]


def learner(name: str, backbone: FrozenViT, finished: bool, tasks: int) -> tuple[Method, Task]:
    """A method in the last of its tasks, where prompts of all earlier ones take part, or having finished it.

    CODA-Prompt has ten components a task, as in its paper, or as many as can be orthogonal in this width. NAME@KEY=VALUE,... is
    a method with settings of its own.
    """
    name, _, settings = name.partition("@")
    model: dict[str, Any] = (
        {"pool": tasks * min(10, backbone.width // tasks)} if name == "coda_prompt" else {}
    )
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        model[key] = int(value) if value.isdecimal() else value
    method = build_method(name, backbone, CLASSES, tasks, model, 0).to(backbone.device)
    size = CLASSES // tasks
    for index in range(tasks):
        start = index * size
        labels = torch.arange(start, start + size, device=backbone.device)
        queries = torch.randn(size, backbone.width, device=labels.device)
        task = Task(index, start, start + size, start, lambda q=queries, y=labels: (q, y))  # type: ignore[misc]
        method.train()
        method.begin_task(task)
        if index < tasks - 1 or finished:
            method.end_task(task)
    return method, task


def train_step(
    method: Method, task: Task, optimiser: Any, images: Tensor, query: Tensor | None, labels: Tensor
) -> None:
    if query is None and method.needs_query:
        with torch.no_grad():
            query = method.backbone.cls(images)
    optimiser.zero_grad(set_to_none=True)
    method.loss(images, query, labels, task).total.backward()  # type: ignore[arg-type]
    optimiser.step()


def answer(method: Method, images: Tensor, query: Tensor | None) -> None:
    if query is None and method.needs_query:
        query = method.backbone.cls(images)
    method(images, query)  # type: ignore[arg-type]


eval_step = torch.inference_mode()(answer)


def crops(count: int, side: int) -> Views:
    """Training views of so many square images."""
    return training_views(0, np.arange(count), 0, np.full((count, 2), side), 0.08, True)


def take_in(backbone: FrozenViT, draw: Callable[[Views], Tensor], count: int, side: int) -> None:
    backbone.normalise(draw(crops(count, side)))


def steps(backbone: FrozenViT, names: list[str], batch: int, tasks: int) -> dict[str, Step]:
    """Everything that is measured, by its name in the table."""
    device = backbone.device
    side = backbone.image_size
    images = backbone.normalise(
        torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=device)
    )
    query = torch.randn(batch, backbone.width, device=device)
    prompt = torch.zeros(2, 1, backbone.width, device=device, requires_grad=True)

    def plain() -> None:
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=backbone.precision == "bf16"),
        ):
            backbone.network.forward_features(images)

    def floor() -> None:
        backbone.cls(images, {0: prompt}).square().sum().backward()

    found: dict[str, Step] = {"plain forward": plain, "floor: forward + backward": floor}
    for source in dict.fromkeys(
        (32, round(side / 0.875))
    ):  # small images enlarged, and decoded ones as by default
        squares = torch.randint(0, 256, (batch, source, source, 3), dtype=torch.uint8)
        if device.type == "cpu":
            draw = partial(resample, squares.numpy(), np.arange(batch), size=side)
        else:
            draw = partial(resample_on_device, squares.to(device), size=side)
        found[f"views {source} to {side} pixels"] = partial(draw, crops(batch, source))
        found[f"input {source} to {side} pixels"] = partial(take_in, backbone, draw, batch, source)
    for name in names:
        method, task = learner(name, backbone, False, tasks)
        done = learner(name, backbone, True, tasks)[0].eval()
        labels = torch.full((batch,), task.start, device=device)
        optimiser = build_optimiser(method.param_groups(), TrainSpec())
        kinds = {"warm": query, "cold": None} if method.needs_query else {"": query}
        for kind, given in kinds.items():
            suffix = f" {kind}" if kind else ""
            if optimiser is not None:
                found[f"{name} train{suffix}"] = partial(
                    train_step, method, task, optimiser, images, given, labels
                )
            found[f"{name} eval{suffix}"] = partial(eval_step, done, images, given)
    return found


def seconds(step: Step, device: torch.device) -> float:
    """CPU seconds of this process, or the time between two events on the GPU's stream."""
    if device.type == "cpu":
        start = time.process_time()
        step()
        return time.process_time() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    step()
    after.record()
    torch.cuda.synchronize(device)
    return before.elapsed_time(after) / 1000


def peak_mib(step: Step, device: torch.device) -> float | str:
    """Most that lies on the GPU during a step beside what lay there before it; '' on a CPU, where nobody counts."""
    if device.type == "cpu":
        return ""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)


def counted_flops(step: Step) -> int:
    """FLOPs of a step; the counter cannot follow inference mode, so a step at test is counted outside of it."""
    with FlopCounterMode(display=False) as counter:
        if isinstance(step, partial) and step.func is eval_step:
            answer(*step.args)
        else:
            step()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, precision: str, repeats: int) -> float:
    """FLOP/s of a large matrix product in this run."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.randn(
        side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
    )
    best = min(seconds(lambda: a @ a, device) for _ in range(repeats + 2))
    return 2 * side**3 / best


def kept_for_backward(step: Step) -> int:
    """Bytes of the tensors that a step keeps for its backward pass, each storage once; frozen weights are not counted."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.grad_fn is not None:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


def measure(backbone: FrozenViT, names: list[str], batch: int, repeats: int, tasks: int) -> Rows:
    """Rows of the table, in the last of so many tasks."""
    device = backbone.device
    todo = steps(backbone, names, batch, tasks)
    flops, kept, peak = {}, {}, {}
    for name, step in todo.items():
        data = name.startswith(("views ", "input "))
        step()  # warms up
        flops[name] = 0 if data else counted_flops(step)
        kept[name] = 0 if data or " eval" in name else kept_for_backward(step)
        peak[name] = peak_mib(step, device)
    best = dict.fromkeys(todo, float("inf"))
    for _ in range(repeats):
        for name, step in todo.items():
            for _ in range(
                SHORT if best[name] < 0.02 else 1
            ):  # the others have emptied the processor's caches
                best[name] = min(best[name], seconds(step, device))
    rate = matmul_rate(device, backbone.precision, repeats)
    return [
        {
            "device": device.type,
            "precision": backbone.precision,
            "tasks": tasks,
            "step": name,
            "ratio": round(value / best["plain forward"], 2),
            "ms": round(1000 * value, 2),
            "images_per_second": round(batch / value, 1),
            "gflops_per_image": round(flops[name] / batch / 1e9, 3) if flops[name] else "",
            "tflops": round(flops[name] / value / 1e12, 4) if flops[name] else "",
            "share_of_matmul": round(flops[name] / value / rate, 2) if flops[name] else "",
            "kept_mib": round(kept[name] / 2**20, 1) if kept[name] else "",
            "peak_mib": peak[name],
        }
        for name, value in best.items()
    ]


def save_growth(table: Any, file: Path) -> None:
    """A step's cost against the number of tasks, training and test, query features from the cache."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns

    table = table[table["step"].str.contains(" train| eval") & ~table["step"].str.endswith("cold")]
    table = table.assign(
        method=table["step"].str.split().str[0], kind=table["step"].str.split().str[1]
    )
    grid = sns.relplot(
        table,
        x="tasks",
        y="ratio",
        hue="method",
        style="method",
        col="kind",
        kind="line",
        markers=True,
        height=3.5,
    )
    grid.set(ylim=(0, None), ylabel="plain forward passes")
    grid.savefig(file, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--backbone", default="vit_base_patch16_224", help="a timm name, or vit_glyphs"
    )
    parser.add_argument("--image-size", type=int, default=0, help="pixels; 0 = the network's own")
    parser.add_argument("--batch", type=cli.positive, default=8)
    parser.add_argument("--threads", type=cli.positive, default=1)
    parser.add_argument("--repeats", type=cli.positive, default=5)
    parser.add_argument("--precision", default="fp32", help="comma-separated: fp32, bf16")
    parser.add_argument("--device", default="cpu", help="comma-separated: cpu, cuda")
    parser.add_argument(
        "--methods", nargs="+", default=[], help="default: all; with settings: l2p@length=5,top_n=5"
    )
    parser.add_argument(
        "--tasks",
        default="10",
        help="comma-separated: measure in the last of so many tasks, e.g. 5,10,20,50",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="a CSV file for the table; with several --tasks also a figure beside it",
    )
    args = parser.parse_args()
    counts = [int(text) if text.isdecimal() else 0 for text in args.tasks.split(",")]
    if not all(1 <= count <= CLASSES // 2 for count in counts):
        raise UsageError(
            f"--tasks {args.tasks}: whole numbers from 1 to {CLASSES // 2}, separated by commas, are expected"
        )
    set_arithmetic(args.threads)
    rows: Rows = []
    for place in args.device.split(","):
        for precision in args.precision.split(","):
            if precision not in ("fp32", "bf16"):
                raise UsageError.unknown("--precision", precision, ["fp32", "bf16"])
            values = {"name": args.backbone, "checkpoint": "random", "image_size": args.image_size}
            spec = make(BackboneSpec, values, "backbone")
            backbone = load_backbone(spec, precision).to(torch.device(choose_device(place)))
            for name in args.methods:
                if name.partition("@")[0] not in method_names():
                    raise UsageError.unknown("--methods", name, method_names())
            for tasks in counts:
                rows += measure(
                    backbone, args.methods or method_names(), args.batch, args.repeats, tasks
                )
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    print(markdown(table))
    if args.out:
        write_csv(args.out, COLUMNS, rows)
        if len(counts) > 1:
            save_growth(table, args.out.with_suffix(".png"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cores = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"
    print(
        f"batch {args.batch}, {args.threads} thread(s) of {cores}; peak memory of the process {peak:.0f} MiB"
    )
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
