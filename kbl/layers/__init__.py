"""Keras layers: the Gaussian-mixture head, feature denoising and the augmentation of images."""

from kbl.layers.augment import RandomFlipCrop
from kbl.layers.denoise import Denoise
from kbl.layers.gmm_head import GMMHead, has_gmm_head

__all__ = ["Denoise", "GMMHead", "RandomFlipCrop", "has_gmm_head"]
