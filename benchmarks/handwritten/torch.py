"""PGD by hand in PyTorch, channels first, eager."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional


class Convnet(torch.nn.Module):
    """Two 5x5 convolutions with max-pooling, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = torch.nn.Conv2d(32, 64, 5, padding=2)
        self.dense1 = torch.nn.Linear(7 * 7 * 64, 1024)
        self.dense2 = torch.nn.Linear(1024, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.dense2(functional.relu(self.dense1(x.flatten(1))))


def make(weights: list[Any], epsilon: float, step_size: float, steps: int) -> Callable[[Any, Any], Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Convnet().to(device)
    with torch.no_grad():
        for layer, (kernel, bias) in zip(
            network.children(), zip(weights[::2], weights[1::2], strict=True), strict=True
        ):
            kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            if layer is network.dense1:  # Keras flattens channels last
                kernel = kernel.reshape(-1, 7, 7, 64).transpose(0, 3, 1, 2).reshape(1024, -1)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
            layer.bias.copy_(torch.from_numpy(bias))

    def attack(x: Any, y: Any) -> Any:
        x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(device)
        y = torch.from_numpy(y).long().to(device)
        x_adv = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).clamp_(0, 1)
        for _ in range(steps):
            x_adv.requires_grad_()
            (gradient,) = torch.autograd.grad(functional.cross_entropy(network(x_adv), y), x_adv)
            with torch.no_grad():
                x_adv = x_adv + step_size * gradient.sign()
                x_adv = torch.minimum(torch.maximum(x_adv, x - epsilon), x + epsilon).clamp_(0, 1)
        return x_adv.detach().permute(0, 2, 3, 1).cpu().numpy()

    return attack
