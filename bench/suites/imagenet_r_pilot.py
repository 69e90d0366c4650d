"""Split ImageNet-R (Hendrycks et al. 2021), 10 tasks of 20 classes: HLGP's likely setting.

Published in this protocol for 40 tasks only (EASE, CVPR 2024, table 1; seed 1993, n = 1), accuracy
over all test images seen, mean over the tasks / after the last: L2P 66.53 / 59.22, DualPrompt 63.31
/ 55.22, CODA-Prompt 64.42 / 55.08, SimpleCIL (here `ncm`) 62.58 / 54.55. Compared with `--set
benchmarks.imagenet-r-10.data.tasks=40 benchmarks.imagenet-r-10.data.split=pilot --name NAME`,
SimpleCIL alone: a batch votes on L2P's prompts there, DualPrompt's are mixed, CODA-Prompt has other
crops. HLGP: not available. Protocol and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh imagenet_r_pilot --device cuda
Cost: 2,206 PFLOP, 34,718,920 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

benchmarks = dict(_delete_=True, **{"imagenet-r-10": _base_.benchmarks["imagenet-r-10"]})
