"""Made-up results of a suite at the papers' scale."""

from bench.config.suite import load_suite
from bench.store.protocol import protocol
from bench.store.tables import METRICS, MOVEMENT, PROTOCOL, RUNS, TIMING, write_csv


def write_results(
    folder,
    accuracies,
    suite="cifar100_coda",
    drift=None,
    change=lambda spec: spec,
    moved=None,
    images=1_000,
):
    """A results folder of a suite: method -> accuracies (percent), one per order; every entry of
    the matrix is that number.

    images: of each of the ten tasks; as many as there are in CIFAR-100, so that an accuracy has one
    decimal.
    """
    cells = [change(cell) for cell in load_suite(suite).cells]
    metrics, runs, movement, timing, chosen = [], [], [], [], []
    for method, values in accuracies.items():
        mine = [cell for cell in cells if cell.method == method][: len(values)]
        chosen += mine
        for cell, value in zip(mine, values, strict=True):
            name = {
                key: getattr(cell, key)
                for key in ("run_id", "suite", "benchmark", "method", "order_seed", "seed")
            }
            runs.append(
                {
                    **name,
                    "status": "done",
                    "spec_sha": cell.sha,
                    "tasks": 10,
                    "classes": 2,
                    "params_trainable": 1,
                }
            )
            timing.append({"run_id": cell.run_id, "task": 1, "train_seconds": 1, "eval_seconds": 1})
            metrics += [
                {
                    **name,
                    "scenario": scenario,
                    "after_task": t,
                    "eval_task": i,
                    "n": images,
                    "correct": round(images * value / 100),
                }
                for scenario in ("class", "task")
                for t in range(1, 11)
                for i in range(1, t + 1)
            ]
            movement += [
                {
                    "run_id": cell.run_id,
                    "task": 2,
                    "layer": layer,
                    "prompt_change": (moved or {}).get(method, 0.1),
                    "feature_drift": (drift or {}).get(method, 0.0) + layer / 100,
                }
                for layer in (0, 12)
            ]
    write_csv(folder / "metrics.csv", METRICS, metrics)
    write_csv(folder / "runs.csv", RUNS, runs)
    write_csv(folder / "timing.csv", TIMING, timing)
    write_csv(folder / "movement.csv", MOVEMENT, movement)
    write_csv(folder / "protocol.csv", PROTOCOL, protocol(chosen, [{}] * len(chosen)))
    return folder
