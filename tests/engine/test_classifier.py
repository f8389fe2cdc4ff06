"""The arguments of `rlbench.attack`: mistakes give one line, tensors do not change, doubtful results give a warning."""

from types import SimpleNamespace

import pytest
import torch

from rlbench.core.errors import AttackError, RLBenchError, SoundnessWarning
from rlbench.core.machine import full_float32, reproducible
from rlbench.engine.attack.api import attack

W = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
X = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def net(x):
    return x.flatten(1) @ W.T


Y = net(X).argmax(1)
SLIPS = [
    (net, X.numpy(), Y, "torch.from_numpy"),
    (net, X.double(), Y, "x.float"),
    (net, (X * 255).byte(), Y, "/ 255"),
    (net, X * 255, Y, "divide by 255, or give high=255"),
    (net, X * 2 - 1, Y, "low and high"),
    (net, X / 0 * 0, Y, "not finite"),
    (net, X, torch.eye(5)[Y].long(), "argmax"),
    (net, X, Y.float(), "int64 labels"),
    (net, X, Y[:3], "8 int64 labels"),
    (net, X, Y - 9, "from 0 on"),
    (net, X, Y + 9, "label"),
    (lambda x: net(x)[:, 0], X, Y, "(1,) float32"),
    (lambda x: net(x)[:, :1], X, Y, "torch.stack((-s, s), 1)"),
    (lambda x: net(x).tolist(), X, Y, "list"),
    (lambda x: (net(x), net(x)), X, Y, "tuple of (1, 5) float32, (1, 5)"),
    (lambda x: net(x - x.mean(0)), X, Y, "depend on the batch"),
]


@pytest.mark.parametrize(("classifier", "x", "y", "words"), SLIPS, ids=[s[3] for s in SLIPS])
def test_a_mistake_gives_one_line(classifier, x, y, words) -> None:
    with pytest.raises(RLBenchError) as caught:
        attack(classifier, x, y, "pgd", steps=3)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_classifier_without_gradients_is_named() -> None:
    with pytest.raises(AttackError, match="have no gradient in x, which PGD needs"):
        attack(lambda x: net(x).detach(), X, Y, "pgd")
    assert attack(lambda x: net(x).detach(), X, Y, "square", queries=20).badge == "partial"


@pytest.mark.parametrize(
    ("classifier", "x", "y"),
    [
        (lambda x: (net(x), None), X, Y),
        (lambda x: {"logits": net(x), "loss": None}, X, Y),
        (lambda x: SimpleNamespace(logits=net(x)), X, Y),
        (net, X.clone().requires_grad_(), Y.int()),
        (lambda x: net(x.mul_(1)), X, Y.to(torch.uint8)),
    ],
)
def test_unambiguous_arguments_are_accepted(classifier, x, y) -> None:
    right, found = attack(net, X, Y, "pgd", steps=3), attack(classifier, x, y, "pgd", steps=3)
    assert torch.equal(found.broken, right.broken) and not found.x_adv.requires_grad


def test_the_callers_tensors_do_not_change() -> None:
    x, y = X.clone(), Y.clone()
    attack(lambda x: net(x.mul_(0.5)), x, net(x * 0.5).argmax(1), "pgd", steps=3)
    assert torch.equal(x, X) and torch.equal(y, Y)


@pytest.mark.parametrize(
    ("change", "id_"), [(lambda z: z + torch.randn(z.shape), "S10"), (lambda z: z.softmax(1), "H9")]
)
def test_doubtful_results_give_a_warning(change, id_) -> None:
    with pytest.warns(SoundnessWarning, match=id_):
        assert attack(lambda x: change(net(x)), X, Y, "pgd", steps=3).badge != "sound"


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_full_float32_takes_effect_and_restores_the_settings(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_float32():
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == precision and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_attacks_and_runs_compute_in_full_float32() -> None:
    seen = set()

    def classify(x):
        seen.add(torch.get_float32_matmul_precision())
        return net(x)

    torch.set_float32_matmul_precision("high")
    try:
        attack(classify, X, Y, "fgsm")
        with reproducible("cpu"):
            classify(X)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == {"highest"}
