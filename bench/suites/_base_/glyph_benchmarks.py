"""The embedded benchmarks with three class orders.

Three tasks of 20 classes: with five of 12 a task has too few images for its prompts to learn what
joint training shows there is to learn (validation images; see docs/findings.md).
"""

order_seeds = [1, 2, 3]
seeds = [1]

benchmarks = {
    "glyphs": dict(data=dict(name="glyphs", tasks=3)),
    "glyphs-r": dict(data=dict(name="glyphs-r", tasks=3)),
    "glyphs-a": dict(data=dict(name="glyphs-a", tasks=3)),
    "glyphs-v": dict(data=dict(name="glyphs-v", tasks=6)),
    "digits": dict(data=dict(name="digits", tasks=5)),
}
