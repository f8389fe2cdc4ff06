"""The note about small backbones, whose numbers are no published model's."""

from __future__ import annotations

from collections.abc import Iterable


def describe_mini(backbones: Iterable[str]) -> str:
    """Markdown: what the small backbones among these are, by name; "" without any."""
    names = [f"`{name}`" for name in sorted(set(backbones)) if name.startswith("mini")]
    if not names:
        return ""
    if len(names) > 1:
        return (
            f"Backbones {' and '.join(names)} are model organisms: small encoders that a laptop trains in minutes, to "
            "compare methods with. Their numbers are not LanguageBind's."
        )
    return (
        f"Backbone {names[0]} is a model organism: a small encoder that a laptop trains in minutes, to compare "
        "methods with. Its numbers are not LanguageBind's."
    )
