"""Split CIFAR-100, 10 tasks, recipe of the CODA-Prompt repository, five class orders.

Dataset: Krizhevsky 2009. Published final average accuracy, 5 trials, mean ± std (CODA-Prompt
protocol, as copied in VQ-Prompt and OS-Prompt): L2P++ 82.50 ± 1.10, Deep L2P++ 84.30 ± 1.03,
DualPrompt 83.05 ± 1.16, CODA-Prompt 86.25 ± 0.74, joint (full) 91.38. HLGP: not available.
Cumulative average accuracy: L2P++ 88.96.

Not run by this project: no GPU. Command: ./run_all.sh cifar100_coda --device cuda
Cost: 4,163 PFLOP, 65,888,120 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_coda.py"]

reference = "hlgp"

data = dict(name="cifar100", root="cifar100")
benchmarks = {"cifar100-10": dict()}
