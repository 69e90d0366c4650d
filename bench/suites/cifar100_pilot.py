"""Split CIFAR-100 (Krizhevsky 2009), 10 tasks of 10 classes: HLGP's likely setting.

Published in this protocol for 20 tasks only (EASE, CVPR 2024, table 1; seed 1993, n = 1), accuracy
over all test images seen, mean over the tasks / after the last: L2P 85.94 / 79.93, DualPrompt 87.87
/ 81.15, CODA-Prompt 89.11 / 81.96, SimpleCIL (here `ncm`) 87.57 / 81.26. Compared with `--set
benchmarks.cifar100-10.data.tasks=20 --name NAME`, SimpleCIL alone: a batch votes on L2P's prompts
there, DualPrompt's are mixed, CODA-Prompt has other crops. HLGP: not available. Protocol and
choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh cifar100_pilot --device cuda
Cost: 4,565 PFLOP, 71,418,920 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

benchmarks = dict(_delete_=True, **{"cifar100-10": _base_.benchmarks["cifar100-10"]})
