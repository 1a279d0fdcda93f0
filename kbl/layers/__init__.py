"""Keras layers: the Gaussian-mixture head and the augmentation of images."""

from kbl.layers.augment import RandomFlipCrop
from kbl.layers.gmm_head import GMMHead

__all__ = ["GMMHead", "RandomFlipCrop"]
