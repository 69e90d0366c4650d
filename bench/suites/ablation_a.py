"""The rows of suite `ablation` on `glyphs-a`: is it the benchmark that hides what the switches do?"""

_base_ = ["./ablation.py"]

benchmarks = dict(_delete_=True, **{"glyphs-a": dict(data=dict(name="glyphs-a", tasks=3))})
