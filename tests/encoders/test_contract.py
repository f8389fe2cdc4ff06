"""A mistake in a user's encoder is one line that names the model, the field and what is required."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
import torch
from commands import Call, fails
from faulty_encoders import ACCEPTED, MISTAKES, Good, StraightThrough
from tiny_suite import counts, suite_file
from torch.nn.functional import normalize

from rlbench.core.errors import RLBenchError
from rlbench.core.suite import load_suite
from rlbench.encoders import models
from rlbench.encoders.contract import check_embed, check_text
from rlbench.engine.block.bench import prepare
from rlbench.engine.run.runner import run


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_model_and_field(name: str, tmp_path) -> None:
    suite = load_suite(suite_file(tmp_path))
    with pytest.raises(RLBenchError) as caught:
        prepare(suite, f"faulty_encoders:{name}")
    line = str(caught.value)
    assert line.startswith(f"faulty_encoders:{name}") and "\n" not in line, line
    for word in MISTAKES[name][1]:
        assert word in line, line


def test_at_the_command_line_a_mistake_exits_with_2_before_anything_is_written(call: Call, tmp_path) -> None:
    arguments = (
        "run",
        "--suite",
        suite_file(tmp_path),
        "--model",
        "faulty_encoders:embed_norm",
        "--out",
        tmp_path / "out",
    )
    fails(call(*arguments), "faulty_encoders:embed_norm: embed", "norm 13", untouched=tmp_path / "out")


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_output_of_another_type_gives_the_numbers_of_the_right_encoder(name: str, tmp_path) -> None:
    suite = suite_file(tmp_path, 24)
    right, taken = (run(suite, f"faulty_encoders:{m}", out=tmp_path / m, workers=1) for m in ("Good", name))
    assert (right[0].n_correct or 0) > 0 and not any(record.error for record in (*right, *taken))
    if name != "Half":  # its last bits are its own
        assert counts(taken) == counts(right)


@pytest.mark.parametrize("modality", ["image", "thermal", "audio", "video"])
@pytest.mark.parametrize("model", ["languagebind", "rlbind", "random:mini"])
def test_bundled_encoders_pass(model: str, modality) -> None:
    encoder = models.load_encoder(model, modality)
    check_text(encoder, model, ("a dog", "the sound of rain"), check_embed(encoder, model, modality, "cpu"))


def test_the_check_costs_a_pass_of_two_and_one_of_one_with_its_gradient() -> None:
    passes: list[tuple[int, bool]] = []

    class Counting(Good):
        def embed(self, x: torch.Tensor, modality: str) -> torch.Tensor:
            passes.append((len(x), x.requires_grad))
            return super().embed(x, modality)

    check_embed(Counting(), "counting", "image", "cpu")  # type: ignore[arg-type]
    assert passes == [(2, False), (1, True)]


def test_an_undeclared_gradient_is_refused_and_a_declared_one_is_not(tmp_path) -> None:
    class Declared(Good):
        traits = frozenset({"non_differentiable"})

        def embed(self, x: torch.Tensor, modality: str) -> torch.Tensor:
            return super().embed(x, modality).detach()

    check_embed(Declared(), "m", "image", "cpu")  # type: ignore[arg-type]
    Declared.traits = frozenset()
    with pytest.raises(RLBenchError, match=re.escape("m: embed returned a tensor without a gradient")):
        check_embed(Declared(), "m", "image", "cpu")  # type: ignore[arg-type]


def test_a_gradient_that_only_approximates_a_rounding_is_accepted() -> None:
    check_embed(StraightThrough(), "m", "image", "cpu")


def test_a_gradient_that_holds_on_a_quarter_of_the_way_is_accepted() -> None:
    """A turn of 0.6 of a circle: the tangent points away from the end, and at a quarter of the step it does not."""

    class Curved(Good):
        def embed(self, x: torch.Tensor, modality: str) -> torch.Tensor:
            turns = 0.6 * 2 * torch.pi * 255 / 4 * x.flatten(1)[:, :8]
            return normalize(torch.cat([turns.sin(), turns.cos()], dim=1), dim=1)

    check_embed(Curved(), "m", "image", "cpu")  # type: ignore[arg-type]


def test_a_factory_leaves_the_settings_of_torch_as_they_were() -> None:
    for name in ("default_dtype", "default_device", "no_gradients"):
        with suppress(RLBenchError):
            models.load_encoder(f"faulty_encoders:{name}")
        assert torch.get_default_dtype() == torch.float32 and torch.get_default_device() == torch.device("cpu")
        assert torch.is_grad_enabled()
