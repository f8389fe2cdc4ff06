"""Weights are found wherever an encoder stores them, and so is a module in training mode."""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from rlbench.core import Box
from rlbench.core.errors import RLBenchError
from rlbench.encoders import reach as reaching
from rlbench.encoders.loading import check_frozen
from rlbench.encoders.reach import reach


class Holder:
    """An object with any attributes."""

    def __init__(self, **held: object) -> None:
        vars(self).update(held)


def _put_in_slot(net: nn.Module) -> object:
    class Slotted:
        __slots__ = ("_net",)

    one = Slotted()
    one._net = net  # type: ignore[attr-defined]
    return one


def _wrap(net: nn.Module) -> object:
    @torch.no_grad()
    def embed(x: torch.Tensor) -> torch.Tensor:
        return net(x)

    return embed


PLACES = {
    "encoder.net": lambda net: Holder(net=net),
    "encoder.parts[0].net": lambda net: Holder(parts=[Holder(net=net)]),
    "encoder.table['a'][1]": lambda net: Holder(table={"a": (0, net)}),
    "encoder.parts[]": lambda net: Holder(parts={net}),
    "encoder.queue[0]": lambda net: Holder(queue=deque([net])),
    "encoder.order[3]": lambda net: Holder(order=OrderedDict({3: net})),
    "encoder.space.net": lambda net: Holder(space=SimpleNamespace(net=net)),
    "encoder.made.keywords['net']": lambda net: Holder(made=partial(print, net=net)),
    "encoder.made.args[0]": lambda net: Holder(made=partial(print, net)),
    "encoder.made.self": lambda net: Holder(made=net.forward),
    "encoder.made.net": lambda net: Holder(made=lambda x: net(x)),
    "encoder.made.func.net": lambda net: Holder(made=_wrap(net)),
    "encoder.one._net": lambda net: Holder(one=_put_in_slot(net)),
    "encoder.first.inner": lambda net: Holder(first=nn.Sequential(OrderedDict(inner=net)).requires_grad_(False).eval()),
}


@pytest.mark.parametrize("path", PLACES)
def test_a_module_in_training_mode_is_found_where_it_is(path: str) -> None:
    net = nn.Dropout()
    holder = PLACES[path](net)
    net.train()
    with pytest.raises(RLBenchError, match="is in training mode at") as caught:
        check_frozen(holder, "own:make")
    assert str(caught.value) == f"the encoder 'own:make' is in training mode at {path}; its factory must call eval()"
    check_frozen(PLACES[path](nn.Dropout().eval()), "own:make")


@pytest.mark.parametrize(
    "held", [nn.Linear(2, 2).eval(), nn.Parameter(torch.ones(2)), torch.ones(1, requires_grad=True)]
)
def test_what_requires_gradients_is_named(held: object) -> None:
    with pytest.raises(
        RLBenchError, match=r"is not frozen at encoder\.parts\[0\].*; its factory must call requires_grad_"
    ):
        check_frozen(Holder(parts=[held]), "own:make")


def test_a_module_that_does_not_use_its_mode_may_be_in_training_mode() -> None:
    class Normalise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = [0.5]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - self.mean[0]

    check_frozen(Holder(front=Normalise()), "own:make")
    with pytest.raises(RLBenchError, match="in training mode"):
        check_frozen(Holder(front=nn.Sequential(nn.BatchNorm1d(2)).requires_grad_(False)), "own:make")


def test_values_of_all_kinds_are_found_and_cycles_are_left() -> None:
    holder = Holder(a=1, b="two", array=np.arange(3), generator=np.random.default_rng(0), act=torch.relu)
    holder.me = [holder]
    found = {one.path: one.value for one in reach(holder).held}
    assert (found["encoder.a"], found["encoder.b"]) == (1, "two")
    assert isinstance(found["encoder.array"], np.ndarray) and "PCG64" in str(found["encoder.generator.state"])
    assert found["encoder.act"] != {one.path: one.value for one in reach(Holder(act=torch.sigmoid)).held}["encoder.act"]
    assert found["encoder.me[0]"] == reaching.Name("see encoder")


def test_a_class_of_rlbench_has_its_name_wherever_its_module_lies() -> None:
    found = {one.path: one.value for one in reach(Holder(box=Box(shape=(1, 8, 8)), net=nn.ReLU())).held}
    assert found["encoder.box"] == reaching.Name("Box")
    assert found["encoder.net.class"] == reaching.Name("torch.nn.modules.activation.ReLU")


def test_two_places_of_one_tensor_are_not_two_tensors() -> None:
    a, b = torch.ones(2), torch.zeros(2)
    texts = [[repr(one.value) for one in reach([a, b, last]).held] for last in (a, b)]
    assert texts[0] != texts[1]


def test_a_library_s_objects_stay_closed_and_the_walk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    assert len(reach(Holder(log=logging.getLogger("x"))).held) < 20
    monkeypatch.setattr(reaching, "LIMIT", 50)
    with pytest.raises(RLBenchError, match="holds more than a million objects, such as encoder"):
        reach(Holder(rows=[[Holder()] for _ in range(100)]))
