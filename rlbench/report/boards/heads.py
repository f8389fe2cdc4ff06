"""The head of a column on pages and pictures: two short lines, and what it means in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rlbench.core import Adversarial, Clean, Composed, Corrupted, Edited, Missing, Threat
from rlbench.core.badges import CHECKS
from rlbench.store.columns import Column, Mean

NORMS = {"linf": "L∞", "l2": "L2", "l0": "L0"}
TEXTS = {
    "template": "one of the templates for each input",
    "typo-shared": "class names with typing errors, the same for all inputs",
    "typo-any": "class names with typing errors for each input",
}
BEFORE = {
    "rank": "the 95% interval of the row's rank; overlapping ranks are ties",
    "model": "the encoder, by the name that --model takes",
    "backbone": "the size of the encoder",
    "anchors": "the hash of the class embeddings, which depend on the text tower and the prompts",
    "warning": "why the row differs from the others by more than its encoder",
    "soundness": "whether the soundness checks of the run trust the row's numbers",
    "n": "the number of examples",
}


class Head(NamedTuple):
    """The head of a column.

    Attributes:
        name: the first line, such as `pgd`.
        detail: the second line, such as `L∞ 4/255`; "" for none.
        about: what the column shows, in words.
    """

    name: str
    detail: str
    about: str


def describe_columns(columns: Sequence[Column]) -> list[Head]:
    """The heads of a table's columns of scores; fields of attacks and corruptions only where two heads would agree.

    A surrogate always stays, since points from one are a weaker attack.
    """
    heads = [_describe(column) for column in columns]
    short = [(re.sub(r"\(.*?(?= from |$)", "", head.name), head.detail) for head in heads]
    return [
        head._replace(name=place[0] if short.count(place) == 1 else head.name, about=head.about + _qualify(column))
        for head, place, column in zip(heads, short, columns, strict=True)
    ]


def _qualify(column: Column) -> str:
    """What else to know of a column: whether it is a bound, and which of several protocols it has."""
    bound = "; an upper bound, since examples that survive a larger eps were not attacked again" * column.is_bound
    return bound + (f"; protocol {column.protocol}" if column.protocol else "")


def _describe(column: Column) -> Head:
    of, more = column.of, f" {column.protocol[:4]}".rstrip()
    if isinstance(of, Clean):
        return Head("clean", more.strip(), "accuracy on unchanged examples, in %")
    if isinstance(of, Mean):
        about = f"mean accuracy over {of.corruptions} corruptions at severity {of.severity} of 5, in %"
        return Head("corrupted", f"severity {of.severity}{more}", about)
    if isinstance(of, Corrupted):
        name = of.call.replace("_", " ")
        about = f"accuracy under {name} at severity {of.severity} of 5, in %"
        return Head(name, f"severity {of.severity}{more}", about)
    if isinstance(of, Missing):
        about = f"accuracy where {' and '.join(of.sensors)} give{'s' * (len(of.sensors) == 1)} nothing, in %"
        return Head(f"without {' '.join(of.sensors)}", more.strip(), about)
    if isinstance(of, Edited):
        return Head(str(of), more.strip(), f"accuracy where an attacker chooses {TEXTS[of.text]}, in %")
    if isinstance(of, Adversarial):
        about = f"accuracy under the attack {of.call}, {_explain(of.threat)}, in %"
        return Head(of.call, f"{_ball(of.threat)}{more}", about)
    if isinstance(of, Composed):
        name, threat = f"{of.corrupted} + {of.adversarial.call}".replace("_", " "), of.adversarial.threat
        about = f"accuracy under {of.corrupted} and then {of.adversarial.call}, {_explain(threat)}, in %"
        return Head(name, f"{_ball(threat)}{more}", about)
    about = f"share of examples that are correct under every attack, {_explain(of.threat)} or smaller, in %"
    if of.text:
        joint = f"with {TEXTS[of.text.text]} chosen by the attacker, alone and with every attack"
        about = f"share of examples that are correct {joint}, {_explain(of.threat)} or smaller, in %"
    return Head(f"worst {of.text or ''}".rstrip(), f"{_ball(of.threat)}{more}", about)


def _ball(threat: Threat) -> str:
    """A threat model as `L∞ 4/255`."""
    return f"{NORMS[threat.norm]} {str(threat).partition(' ')[2]}"


def _explain(threat: Threat) -> str:
    eps = str(threat).partition(" ")[2]
    if threat.norm == "l0":
        return f"with at most {eps} pixels or bins changed"
    return f"in an {NORMS[threat.norm]} ball of radius {eps}"


def explain_failures(text: str) -> list[dict[str, str]]:
    """The failed checks of a record, from its field `soundness_failed`, with what each asks and advises.

    Args:
        text: such as `H7: 12% of gradients are zero; S4: ...`.
    """
    found = []
    for part in re.split(r"; (?=[HS]\d+: )", text) if text else ():
        id_, _, said = part.partition(": ")
        check = CHECKS.get(id_)
        found.append(
            {"id": id_, "said": said, "asks": check.asks if check else "", "advice": check.advice if check else ""}
        )
    return found
