"""What a step costs on this machine: time, FLOPs, and memory kept for its backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# A short step is tried several times in a row: the other steps have emptied the processor's caches.
SHORT_STEP_SECONDS = 0.02
SHORT_STEP_TRIES = 10
Work = Callable[[], object]


@dataclass
class Step:
    """One row of the table: what is run, and what was measured of it."""

    name: str
    run: Work
    counted: Work | None = None  # the same work for the FLOP counter; None = no network runs
    trains: bool = False
    flops: int = 0
    kept_bytes: int = 0
    peak_mib: float | str = ""
    seconds: float = float("inf")  # the best of all tries


def seconds(work: Work, device: torch.device) -> float:
    """CPU seconds of this process, or the time between two events on the GPU's stream."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    work()
    after.record()
    torch.cuda.synchronize(device)
    return before.elapsed_time(after) / 1000


def peak_gpu_mib(work: Work, device: torch.device) -> float | str:
    """The most memory that the work takes on the GPU; '' on a CPU, where it is not counted."""
    if device.type == "cpu":
        return ""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)


def counted_flops(work: Work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, precision: str, repeats: int) -> float:
    """FLOP/s of a large matrix product in this run."""
    side = 1024 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = min(seconds(lambda: a @ a, device) for _ in range(repeats + 2))
    return 2 * side**3 / best


def kept_for_backward(work: Work) -> int:
    """Bytes that the work keeps for its backward pass: each storage once, no frozen weights."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.grad_fn is not None:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(kept.values())


def measure_steps(steps: list[Step], device: torch.device, repeats: int) -> None:
    """Fill in what the steps cost. They are timed in turn, this often; the best time counts."""
    for step in steps:
        step.run()  # warms up
        if step.counted is not None:
            step.flops = counted_flops(step.counted)
        if step.trains:
            step.kept_bytes = kept_for_backward(step.run)
        step.peak_mib = peak_gpu_mib(step.run, device)
    for _ in range(repeats):
        for step in steps:
            for _ in range(SHORT_STEP_TRIES if step.seconds < SHORT_STEP_SECONDS else 1):
                step.seconds = min(step.seconds, seconds(step.run, device))
