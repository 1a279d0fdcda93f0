"""By hand in PyTorch: channels-last memory, ReLU in place, frozen weights while crafting, BatchNorm's own kernel."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]


def mnist_convnet(w: Weights, x: torch.Tensor, training: bool = False) -> torch.Tensor:
    """Two 5x5 convolutions with max-pooling, a dense layer: features."""
    for name in ("conv1", "conv2"):
        x = functional.conv2d(x, w[f"{name}/kernel"], w[f"{name}/bias"], padding=2)
        x = functional.max_pool2d(functional.relu_(x), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    return functional.relu_(functional.linear(x, w["features/kernel"], w["features/bias"]))


def mnist_small_convnet(w: Weights, x: torch.Tensor, training: bool = False) -> torch.Tensor:
    """Two strided 4x4 convolutions, a dense layer: features."""
    for name in ("conv1", "conv2"):
        x = functional.relu_(functional.conv2d(x, w[f"{name}/kernel"], w[f"{name}/bias"], 2, 1))
    x = x.permute(0, 2, 3, 1).flatten(1)
    return functional.relu_(functional.linear(x, w["features/kernel"], w["features/bias"]))


def resnet32(w: Weights, x: torch.Tensor, training: bool = False) -> torch.Tensor:
    """He's ResNet-32 for CIFAR, shortcuts without weights: features."""

    def normalised(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = w[f"{name}_conv/kernel"]
        if stride == 2:  # "same" as TensorFlow has it
            x = functional.conv2d(functional.pad(x, (0, 1, 0, 1)), kernel, None, 2)
        else:
            x = functional.conv2d(x, kernel, None, 1, 1)
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        return functional.batch_norm(x, *(w[f"{name}_norm/{each}"] for each in names), training, 0.1, 1e-5)

    x = functional.relu_(normalised(4 * x - 2, "stem"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for number in range(1, 6):
            name, stride = f"stage{stage}_block{number}", 2 if stage > 1 and number == 1 else 1
            y = functional.relu_(normalised(x, f"{name}_1", stride))
            y = normalised(y, f"{name}_2")
            if stride == 2:
                missing = (filters - x.shape[1]) // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing, missing))
            x = functional.relu_(y.add_(x))
    return x.mean((2, 3))


NETWORKS: dict[str, Callable[..., torch.Tensor]] = {
    "mnist_convnet": mnist_convnet,
    "mnist_small_convnet": mnist_small_convnet,
    "resnet32": resnet32,
}


def half_distances(w: Weights, h: torch.Tensor) -> torch.Tensor:
    """½‖h - μ‖² to every mean."""
    means = w["head/means"]
    return 0.5 * h.square().sum(1, keepdim=True) + 0.5 * means.square().sum(1) - h @ means.T


class Floor(torch.nn.Module):
    """A network and what is done with it.

    Args:
        name: of the network.
        weights: of kbl's network, by "layer/weight".
    """

    def __init__(self, name: str, weights: dict[str, Any]) -> None:
        super().__init__()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.features, self.w = NETWORKS[name], {}
        for key, array in weights.items():
            value = torch.from_numpy(np.array(array))
            if value.ndim == 4:
                value = value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            elif key.endswith("kernel"):
                value = value.T.contiguous()
            learns = "moving" not in key
            self.w[key] = torch.nn.Parameter(value.to(self.device), requires_grad=learns)
            self.register_parameter(key.replace("/", "__"), self.w[key])
        self.learning = [value for value in self.w.values() if value.requires_grad]

    def forward(self, x: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Return logits of images (batch, C, H, W)."""
        h = self.features(self.w, x, training)
        if "head/means" in self.w:
            return -half_distances(self.w, h)
        return functional.linear(h, self.w["head/kernel"], self.w["head/bias"])

    def freeze(self, frozen: bool) -> None:
        for value in self.learning:
            value.requires_grad_(not frozen)

    def images(self, x: Any) -> torch.Tensor:
        """Bring images (batch, H, W, C) to the device as (batch, C, H, W) in channels-last memory."""
        return torch.from_numpy(x).to(self.device).permute(0, 3, 1, 2)

    def labels(self, y: Any) -> torch.Tensor:
        return torch.from_numpy(y).long().to(self.device)

    def craft(
        self, x: torch.Tensor, y: torch.Tensor, epsilon: float, step_size: float, steps: int, random: bool
    ) -> torch.Tensor:
        x_adv = x
        if random:
            x_adv = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).clamp_(0, 1)
        low, high = (x - epsilon).clamp_(0, 1), (x + epsilon).clamp_(0, 1)
        for _ in range(steps):
            x_adv = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                loss = functional.cross_entropy(self(x_adv), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = torch.add(x_adv.detach(), gradient.sign_(), alpha=step_size)
            x_adv = torch.minimum(torch.maximum(x_adv, low), high)
        return x_adv

    @torch.no_grad()
    def pgd(self, x: Any, y: Any, epsilon: float, step_size: float, steps: int, random: bool = True) -> Any:
        """Return which images are right before and after, (batch,) bool: a clean pass, the steps, a last pass."""
        self.freeze(True)
        images, labels = self.images(x), self.labels(y)
        right = self(images).argmax(1) == labels
        x_adv = self.craft(images, labels, epsilon, step_size, steps, random)
        right &= self(x_adv).argmax(1) == labels
        self.freeze(False)
        return right.cpu().numpy()

    @torch.no_grad()
    def cw(self, x: Any, y: Any, steps: int, phases: int, c: float, rate: float) -> Any:
        """Return the L2 distance of Carlini & Wagner's nearest adversarial image, (batch,)."""
        self.freeze(True)
        x, y = self.images(x), self.labels(y)
        start = torch.atanh((2 * x - 1) * (1 - 1e-6))
        weight = torch.full((len(x),), c, device=self.device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
        best = torch.full_like(weight, torch.inf)
        for _ in range(phases):
            w = start.clone().requires_grad_()
            adam, found = torch.optim.Adam([w], rate), torch.zeros_like(weight, dtype=torch.bool)
            for _ in range(steps):
                with torch.enable_grad():
                    x_adv = 0.5 * (torch.tanh(w) + 1)
                    square = (x_adv - x).square().sum((1, 2, 3))
                    logits = self(x_adv)
                    own = logits.gather(1, y[:, None])[:, 0]
                    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
                    loss = (square + weight * (own - other).clamp(min=0)).sum()
                w.grad = torch.autograd.grad(loss, w)[0]
                adam.step()
                hit = other > own
                found |= hit
                best = torch.where(hit & (square.sqrt() < best), square.sqrt(), best).detach()
            high = torch.where(found, torch.minimum(high, weight), high)
            low = torch.where(found, low, torch.maximum(low, weight))
            weight = torch.where(high.isinf(), weight * 10, 0.5 * (low + high))
        self.freeze(False)
        return best.cpu().numpy()

    def epoch(self, x: Any, y: Any, batch: int, method: str, attack: tuple[float, float, int]) -> float:
        """Train for an epoch on shuffled batches; return the last loss. `method` is "at" or "atblr" (λ = 0.02)."""
        if not hasattr(self, "adam"):
            self.adam = torch.optim.Adam(self.learning, 1e-3, eps=1e-7)
        order = np.random.default_rng(0).permutation(len(x))
        for rows in order[: len(x) // batch * batch].reshape(-1, batch):
            images, labels = self.images(x[rows]), self.labels(y[rows])
            self.freeze(True)
            with torch.no_grad():
                x_adv = self.craft(images, labels, *attack, random=True)
            self.freeze(False)
            loss = (self._at if method == "at" else self._atblr)(images, x_adv, labels)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
        return float(loss.detach())

    def _at(self, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = self(torch.cat([x, x_adv]), training=True)
        return functional.cross_entropy(logits, torch.cat([y, y]))

    def _atblr(self, x: torch.Tensor, x_adv: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.features(self.w, torch.cat([x, x_adv]), True)
        clean, adversarial = (-half_distances(self.w, part) for part in h.chunk(2))
        apart = half_distances(self.w, h.chunk(2)[1].detach())
        near = -2 * clean.gather(1, y[:, None]).mean()
        far = 2 * apart.gather(1, y[:, None]).mean()
        entropies = functional.cross_entropy(clean, y) + functional.cross_entropy(adversarial, y)
        return 0.5 * (entropies + 0.02 * near - 0.02 * far)
