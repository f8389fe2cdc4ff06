"""A running job of APGD by itself, for tests of its rule."""

import torch
from torch import Tensor

from rlbench.attacks.apgd import APGD, Memory
from rlbench.attacks.search.state import Jobs
from rlbench.core import Ball


def make_job(attack: APGD, x: Tensor, ball: Ball) -> Jobs[Memory]:
    """One job at x (1, *shape) of class 0, far from the bounds of the box."""
    none = torch.zeros(1, dtype=torch.int64)
    return Jobs(
        example=none,
        turn=none,
        x_adv=x,
        y=none,
        x=x,
        target=none + 1,
        steps=none,
        low=x - ball.radius,
        high=x + ball.radius,
        memory=attack.begin(x, x, ball),
    )
