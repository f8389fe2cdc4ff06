# %% [markdown]
# # Attack any PyTorch classifier
#
# `rlbench.attack` takes a function from inputs to logits. It runs an attack, checks every point that the attack
# returns (box, norm, finite values), classifies it again, and says whether the result can be trusted.

# %%
import warnings

import torch
from torch import Tensor, nn

import rlbench
from rlbench.core.stats.metrics import wilson

torch.manual_seed(0)

# %% [markdown]
# ## A classifier
#
# A small network that sees the direction of stripes in 16 x 16 pictures. Put your own model and data here: pictures in
# [0, 1], float32, and the network in evaluation mode.


# %%
def draw(n: int) -> tuple[Tensor, Tensor]:
    """n pictures (n, 1, 16, 16) in [0, 1] of stripes in four directions, and their labels."""
    y = torch.arange(n) % 4
    angle = y * torch.pi / 4
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    position = rows * angle.cos().view(-1, 1, 1) + columns * angle.sin().view(-1, 1, 1)
    stripes = torch.sin(position * 1.2 + 6.28 * torch.rand(n, 1, 1))
    return (0.5 + 0.15 * stripes + 0.05 * torch.randn(n, 16, 16)).clamp(0, 1)[:, None], y


model = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU())
model = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(60):
    x, y = draw(128)
    loss = nn.functional.cross_entropy(model(x), y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
model.eval().requires_grad_(False)

# %% [markdown]
# ## Its robust accuracy
#
# `broken` marks the examples that are wrong, clean or at the point that the attack found.

# %%
x, y = draw(60)
for name, fields in (("pgd", {}), ("apgd-ce", {"steps": 20}), ("square", {"queries": 200})):
    found = rlbench.attack(model, x, y, name, norm="linf", eps="8/255", **fields)
    correct = int((~found.broken).sum())
    low, high = wilson(correct, len(x))
    print(
        f"{name:8} {correct / len(x):6.1%} [{low:.1%}, {high:.1%}]  {found.badge}, {int(found.forwards.sum())} passes"
    )

# %% [markdown]
# ## A classifier that looks robust, and is not
#
# Rounding has a gradient of zero, so attacks that follow gradients find nothing. The soundness checks say so, and an
# attack without gradients (`square`) breaks the network.


# %%
def rounded(x: Tensor) -> Tensor:
    """The classifier behind a rounding of its input to 16 levels."""
    return model((x * 15).round() / 15)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name, fields in (("pgd", {}), ("square", {"queries": 200})):
        found = rlbench.attack(rounded, x, y, name, norm="linf", eps="24/255", **fields)
        print(f"{name:8} {float((~found.broken).float().mean()):6.1%}  {found.badge}")
        for finding in found.findings:
            if finding.status not in ("pass", "skip"):
                print(f"         {finding.check.asks}: no, {finding.said}; {finding.check.advice}")
