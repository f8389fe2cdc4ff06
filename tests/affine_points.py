"""Points around an affine classifier, whose least norms and margins are known in closed form."""

import torch
from torch import Tensor, nn


def affine(n_classes: int, low: float, high: float) -> tuple[nn.Linear, Tensor, Tensor]:
    """An affine classifier with 200 points, and for each the true differences w_y - w_j: (N, C, F)."""
    g = torch.Generator().manual_seed(n_classes)
    net = nn.Linear(20, n_classes).requires_grad_(False)
    net.weight.copy_(torch.randn(n_classes, 20, generator=g))
    net.bias.copy_(torch.randn(n_classes, generator=g))
    net.bias -= net.weight.sum(1) * (low + high) / 2
    x = low + (high - low) * torch.rand(200, 20, generator=g)
    return net, x, net.weight[net(x).argmax(1)][:, None] - net.weight[None]
