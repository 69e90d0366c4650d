"""What the page of every suite says, in the same words."""

from __future__ import annotations

from bench.report.tables import MIN_RELATIVE_CHANGE

ANSWER = (
    "Mean ± the half of its 95% t interval over class orders and seeds, in percent. Best method of "
    "each benchmark in bold. Underlined: level, no difference from it can be told (t test over "
    "pairs of the same order and seed, 5%, Holm's correction over all pairs of methods). Below the "
    "first rule stand reference rows, which are not compared, as a scale for the methods; those "
    "below the second see all classes at once, which is no upper bound for rows that train "
    "otherwise. "
    "A row with a lower mean can be level where one with a higher mean is not: its differences "
    "from the best spread more. "
    "A cell is one run of one row, class order and seed; ± 0.0: the class order does not matter."
)
INTERVALS = (
    "All intervals are t intervals. In simulations with three, five and ten cells they cover the "
    "true mean in 95 of 100 experiments. BCa bootstrap intervals, which stand beside them in "
    "tables/pairs.csv, are too narrow for so few cells."
)
MEANS = (
    "FAA: final average accuracy. CAA: mean of the average accuracy after each task. Forgetting: "
    "best accuracy of a task before the last task minus its final one, mean over all tasks but the "
    "last. Class-incremental, the task is never known at test. sd: ± is one standard deviation "
    "over the cells here, not an interval."
)
COST = (
    "FLOPs count the query's forward pass although it is shared between methods. Times are of the "
    "machines named under Environments, and shorter where an earlier cell had left query features "
    "in the cache. Peak memory is that of the worker process since it began, over all cells that "
    "it ran, so rows that shared a process share it. Neither is a fair comparison of rows."
)
MOVEMENT = (
    "What training did: the size of the prompts after the last task (prompt_rms), their change by "
    "a task as a share of it (relative_change), and the drift of earlier tasks' features as the "
    "head reads them (feature_drift, 1 - cosine). HARDLY MOVED: relative_change is below "
    f"{MIN_RELATIVE_CHANGE:g}, so the prompts learned next to nothing."
)
NO_CELL = "No cell has finished yet"
CHOSEN = "curves, forgetting and drift (some may leave a panel)"
NO_SELECTION = (
    "Which prompts were chosen: not recorded in these runs (no selection.csv), or no row selects."
)
DEFINITIONS = (  # as in bench/metrics.py
    "a[t, i]: share of correct answers on the test images of task i after task t, of N tasks.",
    "Final average accuracy, FAA = (1/N) Σᵢ a[N, i].",
    "Cumulative average accuracy, CAA = (1/N) Σₜ Aₜ with Aₜ = (1/t) Σᵢ≤ₜ a[t, i].",
    "Forgetting (max form, Chaudhry et al. 2018) = (1/(N−1)) Σᵢ<N (maxₜ<N a[t, i] − a[N, i]).",
    "Task known: FAA where a[t, i] counts the highest of the logits of task i's own classes alone.",
    "Aligned: FAA where a[t, i] is of a copy of the head that is trained after each task on "
    "samples of all classes seen (bench/engine/align.py). Gain by alignment = aligned FAA − FAA.",
    "Drift = mean over the images x of earlier tasks of 1 − cos(f(x) before, f(x) after a task).",
    "Change of prompts in a task = root mean square of p after − p before; relative_change: as a "
    "share of that of p (bench/engine/movement.py).",
    "Probability of improvement = share of pairs in which the row is above; a tie counts half.",
    "95% t interval: mean ± t₀.₉₇₅,ₙ₋₁ s/√n over n cells (or pairs) of standard deviation s.",
    "Mean rank: 1 is the best on a benchmark, ties share; critical difference of Nemenyi's test = "
    "q₀.₀₅ √(k(k+1)/6b), of k methods on b benchmarks (Demšar 2006).",
    "Likeness of two layers = cosine of their prompts, as one vector each. Selection = share of a "
    "task's test images that got a prompt; of soft weights |wₚ| / Σ |w|, mean over images.",
    "FLOPs: of matrix products and attention, two for each multiplication with its addition, "
    "counted by PyTorch in the run, per image: forward and backward, and the query's forward.",
)
