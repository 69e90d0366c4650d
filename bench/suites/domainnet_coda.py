"""Split DomainNet, 5 tasks of 69 classes, recipe of CODA-Prompt's repository, five orders.

Dataset: Peng et al. 2019. The repository's 5 epochs. Published final average accuracy, 5 trials,
mean ± std (CODA-Prompt protocol, as copied in VQ-Prompt and OS-Prompt): CODA-Prompt 73.24 ± 0.59,
on the repository's own list (split `coda`), so compared only with `--set data.split=coda --name
NAME`, not with the six official lists here. HLGP: not available. Images are resized to a shorter
side of 256: even so they take more than 115 GB ($BENCH_CACHE_LIMIT).

Not run by this project: no GPU. Command: ./run_all.sh domainnet_coda --device cuda
Cost: 9,781 PFLOP, 172,928,855 forward passes (--dry-run)
"""

_base_ = ["./_base_/recipe_coda.py"]

reference = "hlgp"

data = dict(name="folder", root="domainnet", split="official", decode=256, crops_of="whole")
train = dict(epochs=5)
benchmarks = {"domainnet-5": dict(data=dict(tasks=5))}
