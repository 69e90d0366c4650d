"""Split CIFAR-100, 10 tasks, each method's own recipe, five class orders.

Published final average accuracy (the methods' own papers, Wang et al. CVPR 2022 and ECCV 2022; n
unknown): L2P 83.83 ± 0.04 (forgetting 7.63), DualPrompt 86.51 ± 0.33 (5.16), both with the votes of
a batch that holds one task, so not compared; CODA-Prompt 86.25 ± 0.74 (n = 5) with other weights
(see cifar100_coda).

Not run by this project: no GPU. Command: ./run_all.sh cifar100_original --device cuda
Cost: 8,191 PFLOP, 131,735,840 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_original.py"]

data = dict(name="cifar100", root="cifar100")
benchmarks = {"cifar100-10": dict()}
