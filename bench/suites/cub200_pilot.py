"""CUB-200-2011 (Wah et al. 2011), 20 tasks of 10 classes, HLGP's likely setting.

The tasks are LAMDA-PILOT's, the split is the dataset's own. Published (EASE, CVPR 2024, table 1;
seed 1993, n = 1), mean over the tasks / after the last: L2P 67.05 / 56.25, DualPrompt 77.47 /
66.54, CODA-Prompt 84.00 / 73.37, SimpleCIL (here `ncm`) 92.20 / 86.73, on PILOT's own split (2,358
test images; the official one has 5,794), so compared only with `--set data.split=pilot --name
NAME`, and then the last two alone (a batch votes on L2P's prompts there, DualPrompt's are mixed).
HLGP: not available. Recipe and choices: _base_/recipe_pilot.py.

Not run by this project: no GPU. Command: ./run_all.sh cub200_pilot --device cuda
Cost: 663 PFLOP, 12,042,584 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_pilot.py"]

reference = "hlgp"

data = dict(name="folder", root="cub200", split="official", crops_of="whole")
benchmarks = dict(_delete_=True, **{"cub200-20": dict(data=dict(tasks=20))})
