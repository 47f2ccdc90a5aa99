"""The training loop: plain PyTorch, the same for nn.Linear and TFMBSLinear."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .recipes import Recipe

BATCH = 64  # digits
NOISE = 0.1  # standard deviation of the noise on training pixels, of full scale


def train(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[], object] = lambda: None,
) -> nn.Sequential:
    """A trained network, in eval mode. The seed fixes initial weights, noise and order."""
    torch.manual_seed(seed)
    model = recipe.build().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        noisy = images + NOISE * torch.randn_like(images)
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = cross_entropy(
                model(noisy[batch]), labels[batch], label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        after_epoch()
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the digits that the model names right."""
    with torch.inference_mode():
        return 100 * float((model(images).argmax(1) == labels).float().mean())
