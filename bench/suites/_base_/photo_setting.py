"""Real photographs with a real pretrained network: Grocery Store Dataset, ViT-S/14 (DINOv2) at 98
pixels.

Three epochs in batches of eight: as many steps a task (about 100) as five epochs of sixteen, for
60% of the work. L2P's prompts have one token each: five stand beside 50 tokens, where the paper has
25 beside 197. fp32 on every processor, so that cells run on different machines belong to one table.
"""

data = dict(name="folder", root="grocery", tasks=9, decode=112, crop_low=0.5, flip=True)
backbone = dict(
    name="vit_small_patch14_dinov2",
    checkpoint="vit_small_patch14_dinov2.safetensors",
    image_size=98,
    normalise="timm",
)
train = dict(epochs=3, batch_size=8, schedule="cosine_step", precision="fp32")
benchmarks = {"grocery": dict()}
