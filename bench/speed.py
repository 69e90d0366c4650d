"""Steps of every method against a plain forward pass, in one process: `python -m bench.speed`.

A ratio of 1 is a plain forward pass of the timm network. The floor of a training step is a forward
pass and the backward pass through activations only, with one prompt row in the first block.

All steps are measured in turn, and the best of several times counts: CPU seconds of this process on
a CPU, events on a GPU. Warm: query features come from the cache. Cold: the step computes them.
Views: the random crops of a batch, resized and mirrored. Input: also the boxes are drawn and the
pixels normalised.

Columns: tflops are 10^12 FLOP/s, as `--rate` of a dry run takes them. share_of_matmul: that rate
against a large matrix product. kept_mib: memory that a step keeps for its backward pass. peak_mib:
the most GPU memory during a step, less the memory in use before it.
Weights are random: speed does not depend on them, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import cli
from bench.backbone.vit import FrozenViT, load_backbone
from bench.config.spec import BackboneSpec, TrainSpec, make
from bench.cost.measured import Step, matmul_rate, measure_steps
from bench.data.views import Views, resample, resample_on_device, training_views
from bench.engine.task import build_optimiser
from bench.errors import UsageError
from bench.hardware import choose_device, cores, peak_memory_mib, processor_name, set_arithmetic
from bench.method import Method, Task, build_method, method_class, method_names
from bench.report.table_files import markdown
from bench.store.tables import Rows, write_csv

CLASSES = 100
COLUMNS = (
    *("device", "precision", "tasks", "step", "ratio", "ms", "images_per_second"),
    *("gflops_per_image", "tflops", "share_of_matmul", "kept_mib", "peak_mib"),
)


# --- the steps --------------------------------------------------------------------------------


def learner(name: str, backbone: FrozenViT, finished: bool, tasks: int) -> tuple[Method, Task]:
    """A method in the last of its tasks, where prompts of all earlier tasks take part.

    finished: that task has ended as well. NAME@KEY=VALUE,... is a method with these settings.
    """
    name, _, settings = name.partition("@")
    model = method_class(name).settings_for(tasks, backbone.width)
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        model[key] = int(value) if value.isdecimal() else value
    method = build_method(name, backbone, CLASSES, tasks, model, 0).to(backbone.device)
    size = CLASSES // tasks
    for index in range(tasks):
        start = index * size
        task = _made_up_task(backbone, index, start, start + size)
        method.train()
        method.begin_task(task)
        if index < tasks - 1 or finished:
            method.end_task(task)
    return method, task


def _made_up_task(backbone: FrozenViT, index: int, start: int, stop: int) -> Task:
    """With an image of noise for each class."""
    side, device = backbone.image_size, backbone.device
    labels = torch.arange(start, stop, device=device)
    queries = torch.randn(len(labels), backbone.width, device=device)

    def images() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield torch.randn(len(labels), 3, side, side, device=device), queries, labels

    return Task(index, start, stop, start, lambda: (queries, labels), images)


def train(
    method: Method, task: Task, optimiser: Any, images: Tensor, query: Tensor | None, labels: Tensor
) -> None:
    if query is None:
        with torch.no_grad():
            query = method.backbone.cls(images)
    optimiser.zero_grad(set_to_none=True)
    method.loss(images, query, labels, task).total.backward()
    optimiser.step()


def answer(method: Method, images: Tensor, query: Tensor | None) -> None:
    method(images, method.backbone.cls(images) if query is None else query)


def draw_views(count: int, side: int) -> Views:
    """Training views of so many square images."""
    return training_views(0, np.arange(count), 0, np.full((count, 2), side), 0.08, True)


def backbone_steps(backbone: FrozenViT, images: Tensor) -> Iterator[Step]:
    prompt = torch.zeros(2, 1, backbone.width, device=backbone.device, requires_grad=True)
    bf16 = backbone.precision == "bf16"

    def plain() -> None:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            backbone.network.forward_features(images)

    def floor() -> None:
        backbone.cls(images, {0: prompt}).square().sum().backward()

    yield Step("plain forward", plain, plain)
    yield Step("floor: forward + backward", floor, floor, trains=True)


def data_steps(backbone: FrozenViT, batch: int) -> Iterator[Step]:
    """Views of small images, which are enlarged, and of images as they are decoded by default."""
    size = backbone.image_size
    for side in dict.fromkeys((32, round(size / 0.875))):
        squares = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        draw: Callable[[Views], Tensor]
        if backbone.device.type == "cpu":
            draw = partial(resample, squares.numpy(), np.arange(batch), size=size)
        else:
            draw = partial(resample_on_device, squares.to(backbone.device), size=size)

        def take_in(draw: Callable[[Views], Tensor], side: int) -> None:
            backbone.normalise(draw(draw_views(batch, side)))

        yield Step(f"views {side} to {size} pixels", partial(draw, draw_views(batch, side)))
        yield Step(f"input {side} to {size} pixels", partial(take_in, draw, side))


def method_steps(backbone: FrozenViT, name: str, tasks: int, images: Tensor) -> Iterator[Step]:
    method, task = learner(name, backbone, False, tasks)
    finished = learner(name, backbone, True, tasks)[0].eval()
    labels = torch.full((len(images),), task.start, device=backbone.device)
    features = torch.randn(len(images), backbone.width, device=backbone.device)
    optimiser = build_optimiser(method.param_groups(), TrainSpec())
    queries = {" warm": features, " cold": None} if method.needs_query else {"": features}
    for suffix, query in queries.items():
        if optimiser is not None:
            work = partial(train, method, task, optimiser, images, query, labels)
            yield Step(f"{name} train{suffix}", work, work, trains=True)
        work = partial(answer, finished, images, query)
        # The FLOP counter cannot follow inference mode.
        yield Step(f"{name} eval{suffix}", torch.inference_mode()(work), work)


# --- the table -------------------------------------------------------------------------------


def measure(backbone: FrozenViT, names: list[str], batch: int, repeats: int, tasks: int) -> Rows:
    """The table's rows, in the last of so many tasks."""
    device, side = backbone.device, backbone.image_size
    pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=device)
    images = backbone.normalise(pixels)
    steps = [*backbone_steps(backbone, images), *data_steps(backbone, batch)]
    for name in names:
        steps += method_steps(backbone, name, tasks, images)
    measure_steps(steps, device, repeats)
    rate = matmul_rate(device, backbone.precision, repeats)
    plain = next(step.seconds for step in steps if step.name == "plain forward")
    where = {"device": device.type, "precision": backbone.precision, "tasks": tasks}
    return [where | _row(step, batch, plain, rate) for step in steps]


def _row(step: Step, batch: int, plain_seconds: float, matmul_rate: float) -> dict[str, Any]:
    flops, taken = step.flops, step.seconds
    return {
        "step": step.name,
        "ratio": round(taken / plain_seconds, 2),
        "ms": round(1000 * taken, 2),
        "images_per_second": round(batch / taken, 1),
        "gflops_per_image": round(flops / batch / 1e9, 3) if flops else "",
        "tflops": round(flops / taken / 1e12, 4) if flops else "",
        "share_of_matmul": round(flops / taken / matmul_rate, 2) if flops else "",
        "kept_mib": round(step.kept_bytes / 2**20, 1) if step.kept_bytes else "",
        "peak_mib": step.peak_mib,
    }


def save_growth(table: Any, file: Path) -> None:
    """A figure: ratio against the number of tasks, training and test, queries from the cache."""
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns

    names = table["step"]
    table = table[names.str.contains(" train| eval") & ~names.str.endswith("cold")]
    words = table["step"].str.split()
    table = table.assign(method=words.str[0], kind=words.str[1])
    columns = {"x": "tasks", "y": "ratio", "hue": "method", "style": "method", "col": "kind"}
    grid = sns.relplot(table, **columns, kind="line", markers=True, height=3.5)
    grid.set(ylim=(0, None), ylabel="plain forward passes")
    grid.savefig(file, dpi=110)


# --- the command ------------------------------------------------------------------------------


def read_arguments() -> argparse.Namespace:
    """The command line, checked. `tasks`, `device`, `precision` and `methods` become lists."""
    parser = cli.Parser(
        prog="python -m bench.speed",
        description=__doc__.split("\n\n")[0],
    )
    add = parser.add_argument
    add("--backbone", default="vit_base_patch16_224", help="a timm name, or vit_glyphs")
    add("--image-size", type=int, default=0, help="pixels; 0 = the network's own")
    add("--batch", type=cli.positive, default=8)
    add("--threads", type=cli.positive, default=1)
    add("--repeats", type=cli.positive, default=5)
    add("--precision", default="fp32", help="comma-separated: fp32, bf16")
    add("--device", default="cpu", help="comma-separated: cpu, cuda")
    add("--methods", nargs="+", help="default: all; with settings: l2p@length=5,top_n=5")
    add("--tasks", default="10", help="comma-separated: measure in the last of so many tasks")
    add("--out", type=cli.folder, help="a CSV file; with several --tasks also a figure beside it")
    args = parser.parse_args()
    counts = [int(text) if text.isdecimal() else 0 for text in args.tasks.split(",")]
    if not all(1 <= count <= CLASSES // 2 for count in counts):
        raise UsageError(
            f"--tasks {args.tasks}: whole numbers from 1 to {CLASSES // 2}, "
            "separated by commas, are expected"
        )
    args.tasks, args.device = counts, args.device.split(",")
    args.precision, args.methods = args.precision.split(","), args.methods or method_names()
    for precision in args.precision:
        if precision not in ("fp32", "bf16"):
            raise UsageError.unknown("--precision", precision, ["fp32", "bf16"])
    for name in args.methods:
        if name.partition("@")[0] not in method_names():
            raise UsageError.unknown("--methods", name, method_names())
    return args


def main() -> int:
    import pandas as pd

    args = read_arguments()
    set_arithmetic(args.threads)
    values = {"name": args.backbone, "checkpoint": "random", "image_size": args.image_size}
    spec = make(BackboneSpec, values, "backbone")
    rows: Rows = []
    for device in args.device:
        for precision in args.precision:
            backbone = load_backbone(spec, precision).to(torch.device(choose_device(device)))
            for tasks in args.tasks:
                rows += measure(backbone, args.methods, args.batch, args.repeats, tasks)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    print(markdown(table))
    if args.out:
        write_csv(args.out, COLUMNS, rows)
        if len(args.tasks) > 1:
            save_growth(table, args.out.with_suffix(".png"))
    processor = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, {cores()} cores"
    print(
        f"batch {args.batch}, {args.threads} thread(s) of {processor}; "
        f"peak memory of the process {peak_memory_mib()} MiB"
    )
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
