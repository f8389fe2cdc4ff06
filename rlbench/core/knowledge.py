"""What an attacker knows of an encoder: its gradients, its scores, or its labels alone.

An encoder may have the attribute `knowledge`; without it, it is a white box. An attack may have `needs`, the least that
it has to know; without it, it needs gradients.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

Knowledge = Literal["white-box", "score", "label"]
KNOWLEDGE: tuple[Knowledge, ...] = get_args(Knowledge)  # the most first
_WORDS = {"white-box": "gradients", "score": "scores", "label": "labels"}


def knowledge_of(encoder: object) -> Knowledge:
    """What is known of an encoder or classifier."""
    return cast(Knowledge, getattr(encoder, "knowledge", "white-box"))


def needs_of(attack: object) -> Knowledge:
    """The least that an attack has to know."""
    return cast(Knowledge, getattr(attack, "needs", "white-box"))


def explain_lack(name: str, attack: object, knowledge: Knowledge) -> str:
    """Why an attack can't run with this knowledge, or "" if it can."""
    needs = needs_of(attack)
    if KNOWLEDGE.index(needs) >= KNOWLEDGE.index(knowledge):
        return ""
    return f"{name} needs {_WORDS[needs]}; the encoder gives {_WORDS[knowledge]} only"
