"""Keras layers: the Gaussian-mixture head, feature denoising, purification and the augmentation of images."""

from kbl.layers.augment import RandomFlipCrop
from kbl.layers.denoise import Denoise
from kbl.layers.gmm_head import GMMHead, has_gmm_head
from kbl.layers.masked_conv import MaskedConv2D
from kbl.layers.purify import Purify

__all__ = ["Denoise", "GMMHead", "MaskedConv2D", "Purify", "RandomFlipCrop", "has_gmm_head"]
