"""The fields of objectives are checked, with messages that name them."""

from __future__ import annotations

import pytest

from rlbench.core import registry
from rlbench.core.errors import FieldError, UnknownName


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("tecoa", {"scale": 0.0}, "scale is 0.0; it must be above 0"),
        ("tecoa", {"tau": float("inf")}, "tau is inf"),
        ("tecoa", {"distil": -1.0}, "distil is -1.0; it must not be negative"),
        ("rlbind", {"distance": "l1"}, "one of ce, cosine, l2"),
        ("rlbind", {"original": float("nan")}, "original is nan"),
        ("rlbind", {"tua": 1.0}, "did you mean 'tau'"),
        ("agft", {"soften": 0}, "soften"),
        ("advflyp", {"features": -0.1}, "features"),
        ("pmg-aft", {"clean": "much"}, "clean is 'much'"),
        ("infonce", {"scale": -1}, "scale"),
        ("ucat", {"dirichlet": -1}, "dirichlet is -1"),
        ("ucat", {"tau": 0}, "tau is 0"),
        ("distribution", {"tau": 0}, "tau"),
        ("prototypes", {"scale": 0}, "scale"),
        ("teacher", {"tau": -1}, "tau"),
        ("negatives", {"scale": 0}, "scale"),
        ("joint", {"scale": 0}, "scale"),
        ("fare", {"scale": 1}, "no field 'scale'"),
    ],
)
def test_fields_are_checked(name: str, fields: dict, text: str) -> None:
    with pytest.raises(FieldError, match=text):
        registry.make("objective", name, fields)


def test_an_unknown_objective() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tecoa'"):
        registry.make("objective", "tecao")
