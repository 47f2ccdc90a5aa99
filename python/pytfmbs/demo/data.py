"""The digits that scikit-learn ships, as 28×28 pixels around zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    raise ImportError("the demo needs scikit-learn: pip install scikit-learn") from error

SIDE = 28  # pixels
HELD_OUT = 540  # of 1,797 digits; not used to choose anything, with the one exception that recipes.py names
DEAD_ZONE = 0.05  # of full scale: a pixel this close to its threshold becomes 0
# Ordered dither over 2×2 pixels, in standard deviations of the pixel. Neighbours of an upsampled
# image say nearly the same; with thresholds apart, their signs say how bright it is there.
DITHER = torch.tensor([[-0.75, 0.25], [0.75, -0.25]])


@dataclass(frozen=True)
class Digits:
    """Images, float32 [n, 784] around zero, and labels, int64 [n]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """1,257 digits to train on and 540 held out; the same split every time, classes in proportion.

    A sign says nothing about a pixel in [0, 1], so every pixel gets a threshold that is subtracted:
    the training mean, dithered. To nn.Linear the threshold is one more bias; the dead zone is small
    enough to leave its accuracy alone. All networks get the same images.
    """
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.images, digits.target, test_size=HELD_OUT, random_state=0, stratify=digits.target
    )
    train, test = _upsample(train_images), _upsample(test_images)
    dither = DITHER.repeat(SIDE // DITHER.shape[0], SIDE // DITHER.shape[1])
    threshold = train.mean(0) + dither * train.std(0)
    return Digits(
        _around(threshold, train),
        torch.as_tensor(train_labels, dtype=torch.int64),
        _around(threshold, test),
        torch.as_tensor(test_labels, dtype=torch.int64),
    )


def _upsample(images: object) -> Tensor:
    """8×8 pixels of 0…16 to 28×28 of 0…1."""
    pixels = torch.as_tensor(images, dtype=torch.float32) / 16
    return interpolate(pixels[:, None], size=(SIDE, SIDE), mode="bilinear").squeeze(1)


def _around(threshold: Tensor, images: Tensor) -> Tensor:
    difference = images - threshold
    return (difference.sign() * (difference.abs() - DEAD_ZONE).clamp_min(0)).flatten(1)
