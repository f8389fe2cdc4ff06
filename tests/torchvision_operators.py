"""Makes PyPI's torchvision importable with a torch for the CPU, when it is imported before transformers.

PyPI's torchvision for Linux can't load its operators with such a torch, and can't be imported then. No CLIP needs them,
so those that its import looks for are declared; transformers, too, imports torchvision.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import torch

if find_spec("torchvision") is not None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            import torchvision
        except RuntimeError as error:
            assert "torchvision::nms does not exist" in str(error)
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou) -> Tensor")
            import torchvision  # noqa: F401
