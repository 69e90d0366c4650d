"""Real photographs with a real pretrained network: Grocery Store Dataset, ViT-S/14 (DINOv2) at 98 pixels."""

data = dict(name="folder", root="grocery", tasks=9, decode=112, crop_low=0.5, flip=True)
backbone = dict(
    name="vit_small_patch14_dinov2",
    checkpoint="vit_small_patch14_dinov2.safetensors",
    image_size=98,
    normalise="timm",
)
train = dict(epochs=5, batch_size=16, schedule="cosine", precision="auto")
benchmarks = {"grocery": dict()}
