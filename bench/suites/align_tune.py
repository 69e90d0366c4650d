"""The search behind the aligned heads of the embedded benchmarks: covariance, rate, temperature and
samples.

On classes that no benchmark uses, on validation images, with a class order that no reported run
uses, as suite `tune`. Rows are NAME@COVARIANCE+RATE+TEMPERATURE+SAMPLES; three rows with a head
that differ much in what moves: nothing (`linear`), prompts (`hlgp`), prompts at a high rate
(`oneprompt`). Chosen is the setting with the highest final average accuracy of the aligned head,
the mean of the three; it stands in _base_/glyph_methods.py. The default of `align` is SLCA's own.
"""

_base_ = ["./_base_/glyph_methods.py"]

order_seeds = [11]
seeds = [11]

data = dict(name="glyphs-tune", classes=60, tasks=3, evaluate="validation", test_per_class=20)
benchmarks = {"glyphs-tune": dict()}

searched = {}
for name in ("linear", "hlgp", "oneprompt"):
    for covariance in ("full", "diagonal", "shared"):
        for rate in (0.01, 0.03, 0.1):
            for temperature in (0.1, 0.3):
                for samples in (64, 256):
                    label = f"{name}@{covariance}+{rate}+{temperature}+{samples}"
                    align = dict(
                        covariance=covariance, lr=rate, temperature=temperature, samples=samples
                    )
                    searched[label] = dict(_base_.methods[name], align=align)
methods = dict(_delete_=True, **searched)
del searched, name, covariance, rate, temperature, samples, label, align
