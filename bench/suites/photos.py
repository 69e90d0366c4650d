"""All methods and reference rows on 81 classes of real shop photographs in 9 tasks.

Three class orders, about 100 steps a task. Needs the Grocery Store Dataset (Klasson et al. 2019,
MIT licence) as grocery/train/CLASS and grocery/test/CLASS under data/ or $BENCH_DATA, and the
network's weights under weights/ or $BENCH_WEIGHTS. Tested on at most 15 images a class (of 31 on
average), since in fp32 on two cores testing would take half of the time otherwise. A class order
takes about 85 minutes there. `python -m bench.grid photos --keep` goes on from the tables of a
clone.
"""

_base_ = ["./_base_/photo_setting.py", "./_base_/photo_methods.py"]

reference = "hlgp"

order_seeds = [1, 2, 3]
seeds = [1]

data = dict(test_per_class=15)
