"""A suite of seconds for the tests."""

order_seeds = [1, 2]
seeds = [1]
data = dict(name="glyphs", classes=4, tasks=2, train_per_class=4, test_per_class=4)
backbone = dict(name="vit", checkpoint="random", image_size=16, patch=8, width=24, depth=3, heads=2)
train = dict(epochs=1, batch_size=4)
benchmarks = {"glyphs": dict(), "glyphs-r": dict(data=dict(name="glyphs-r"))}
methods = {"linear": dict(type="linear"), "hlgp": dict(type="hlgp", model=dict(groups=3))}
