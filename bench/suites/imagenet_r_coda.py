"""Split ImageNet-R, 5, 10 and 20 tasks, recipe of the CODA-Prompt repository, five orders.

The repository's 50 epochs. Published for 5 / 10 / 20 tasks (as copied in VQ-Prompt and OS-Prompt),
5 trials, mean ± std; final average accuracy (mean over tasks of the accuracy after the last task):
L2P++ 70.83 ± 0.58 / 69.29 ± 0.73 / 65.89 ± 1.30, Deep L2P++ 73.93 ± 0.37 / 71.66 ± 0.64 / 68.42 ±
1.20, DualPrompt 73.05 ± 0.50 / 71.32 ± 0.62 / 67.87 ± 1.39, CODA-Prompt 76.51 ± 0.38 / 75.45 ± 0.56
/ 72.37 ± 1.19, joint (full) 82.06. Cumulative average accuracy: L2P++ 78.34 / 78.30 / 77.15,
DualPrompt 79.47 / 78.94 / 77.42, CODA-Prompt 82.04 / 81.59 / 79.88. CODA's form of forgetting, 10
tasks: L2P++ 2.03, DualPrompt 1.71, CODA-Prompt 1.64. HLGP: not available. Split: the repository's
list (24,000 / 6,000). Training crops come from the images as they are, test images are resized to
256 and the middle 224 cut, as there.

Not run by this project: no GPU. Command: ./run_all.sh imagenet_r_coda --device cuda
Cost: 14,535 PFLOP, 223,469,560 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_coda.py"]

reference = "hlgp"

data = dict(name="folder", root="imagenet-r", split="coda", crops_of="whole")
train = dict(epochs=50)
benchmarks = {f"imagenet-r-{tasks}": dict(data=dict(tasks=tasks)) for tasks in (5, 10, 20)}
