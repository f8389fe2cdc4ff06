"""What an answer of a test-time defence costs on a ViT-B/32: `python benchmarks/test_time_cost.py OUT.jsonl`.

Appends a line per defence, unless OUT.jsonl has it, with its full number of views, on a tower with random weights and
one image: the counted passes and the least CPU seconds of --repeat answers on one thread. `test_time.py board` shows
these lines.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import cast

import click
import torch
from random_vit import SIZES, draw, make_head
from test_time import DEFENCES, VIT, Counted, Line, read
from torch import Tensor
from torch.nn.functional import normalize

from rlbench.core import Encoder, registry
from rlbench.core.seeds import seed_globals
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Fronted
from rlbench.encoders.heads import ZeroShot


class Tower(Counted):
    """The counted tower; its texts, which a defence embeds once per task, are random rows."""

    def embed_text(self, prompts: list[str]) -> Tensor:
        """(P, D), unit norm."""
        return normalize(torch.randn(len(prompts), SIZES[VIT].projection), dim=-1)


def measure_cost(head: ZeroShot, name: str, repeat: int) -> Line:
    """The passes and the CPU seconds of an answer; "static" is the tower without a defence."""
    counted = Tower(head.encoder)
    encoder = cast(Encoder, counted)
    if name != "static":
        encoder = Fronted(encoder, cast(ClassifierDefence, registry.make("defence", name)))
    classifier, x, seconds = replace(head, encoder=encoder), draw(224, 0, 1), []
    with torch.no_grad():
        for k in range(repeat):
            began, counted.forwards, counted.backwards = process_time(), 0, 0
            with seed_globals(k, x.device):
                classifier(x)
            seconds.append(process_time() - began)
    passes = {"forwards": counted.forwards, "backwards": counted.backwards}
    return {"suite": VIT, "model": "random", "defence": name, "n": 1, **passes, "cpu_seconds": round(min(seconds), 2)}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--repeat", type=click.IntRange(1), default=2, show_default=True)
def main(out: Path, repeat: int) -> None:
    """Append the cost of every defence to OUT."""
    torch.set_num_threads(1)
    head = make_head(VIT)
    done = {line["defence"] for line in read(out) if line["suite"] == VIT}
    for name in ("static", *DEFENCES):
        if name in done:
            continue
        line = measure_cost(head, name, repeat)
        click.echo(
            f"{name}: {line['forwards']} forward, {line['backwards']} backward, {line['cpu_seconds']} s", err=True
        )
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
