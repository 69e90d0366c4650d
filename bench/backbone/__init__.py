"""The one frozen network: a timm ViT with prompts put in from outside, and its weights."""
