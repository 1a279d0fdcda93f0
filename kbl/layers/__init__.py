"""Keras layers: the Gaussian-mixture head and the augmentation of images."""

from kbl.layers.augment import RandomFlipCrop
from kbl.layers.gmm_head import GMMHead, has_gmm_head

__all__ = ["GMMHead", "RandomFlipCrop", "has_gmm_head"]
