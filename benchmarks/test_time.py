"""Attacks the test-time defences adaptively, and writes the board leaderboards/test-time.md.

python benchmarks/test_time.py OUT.jsonl [--suites thermal,image] [--models ...] [--defences ...] [--examples 200]
python benchmarks/test_time_board.py OUT.jsonl [--longer LONGER.jsonl]    # prints the board

The first appends a line per suite, encoder and defence, and skips those that OUT.jsonl has with as many examples, so it
can be stopped at any time. It needs CPU hours in full; the options `--views`, `--steps` and `--duels` are part of each
line and of the board. LONGER.jsonl has the same examples under a longer attack, as of `--steps 100 --draws 5`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from time import process_time
from typing import Any, cast

import torch
from torch import Tensor

from rlbench.audit.adaptive import Effort, StaticAttack, attack_adaptively, attack_static, undefended
from rlbench.audit.lab import Lab, main_threat
from rlbench.core import Adversarial, Encoder, Modality
from rlbench.core.suite import load_suite
from rlbench.encoders.defences.classifier_defence import ClassifierDefence, Fronted
from rlbench.engine.block.bench import prepare

DEFENCES = ("view-mean", "ttc", "et3", "hedge", "anti-adversary", "clipure-cos", "dbd", "ttp", "r-tpt")
VIT = "vit-b-32"  # the suite of the lines that test_time_cost.py makes
Line = dict[str, Any]


class Counted:
    """An encoder that counts the examples of its forward and backward passes."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.forwards, self.backwards = encoder, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        """As the encoder's."""
        self.forwards += len(x)
        found = self.encoder.embed(x, modality)
        if found.requires_grad:
            found.register_hook(self._count)  # type: ignore[no-untyped-call]
        return found

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def count_passes(lab: Lab) -> tuple[int, int]:
    """Forward and backward passes of one answer of the defence."""
    encoder = lab.bench.encoder
    assert isinstance(encoder, Fronted)
    counted = Counted(encoder.sibling)
    head = replace(lab.bench.classifier, encoder=Fronted(cast(Encoder, counted), encoder.procedure))
    with torch.no_grad():
        head(lab.x[:1])
    return counted.forwards, counted.backwards


def make_lab(suite_name: str, model: str, n: int, views: int) -> Lab:
    """The defended model on a suite, with this many views where its defence has more."""
    suite = load_suite(suite_name)
    threat = main_threat([p for p in suite.perturbations if isinstance(p, Adversarial)], suite.name)
    bench = prepare(suite, model, batch_size=256)
    encoder = bench.encoder
    assert isinstance(encoder, Fronted)
    procedure = limit_views(encoder.procedure, views)
    head = replace(bench.classifier, encoder=Fronted(encoder.sibling, procedure))
    return Lab(replace(bench, classifier=head), n, threat)


def limit_views(defence: ClassifierDefence, views: int) -> ClassifierDefence:
    """The defence with at most this many views; what it keeps of them shrinks in proportion."""
    full = getattr(defence, "views", 0)
    if full <= views:
        return defence
    names = {field.name for field in fields(defence)} & {"lowest", "nearest"}
    fewer = {name: max(2, round(getattr(defence, name) * views / full)) for name in names}
    return cast(ClassifierDefence, replace(cast(Any, defence), views=views, **fewer))


def measure(lab: Lab, static: StaticAttack, effort: Effort) -> Line:
    """The accuracies, flags and cost of a defence."""
    begun = process_time()
    found = attack_adaptively(lab, effort, static)
    forwards, backwards = count_passes(lab)
    return {
        "n": lab.n,
        "threat": str(lab.threat),
        **{name: pack(getattr(found, name)) for name in ("clean", "static", "oblivious", "adaptive")},
        "left": {name: int(left.sum()) for name, left in found.left.items()},
        "forwards": forwards,
        "backwards": backwards,
        "traits": sorted(lab.bench.encoder.traits),
        "cpu_seconds": round(process_time() - begun, 1),
    }


def pack(flags: Tensor) -> str:
    """(n,) bool as a text of 0 and 1."""
    return "".join("1" if one else "0" for one in flags.tolist())


def run(args: argparse.Namespace) -> None:
    """Appends the missing lines."""
    torch.set_num_threads(1)
    out = Path(args.out)
    done = {key_of(line) for line in read(out) if line["n"] >= args.examples}
    effort = Effort(
        targets=args.targets, steps=args.steps, duels=args.duels, duel_steps=args.duel_steps, draws=args.draws
    )
    names = "views", "targets", "steps", "duels", "duel_steps", "draws"
    protocol = {name: getattr(args, name) for name in names}
    for suite in args.suites.split(","):
        for model in args.models.split(","):
            kept = out.with_name(f"{out.stem}-{suite}-{model}.pt")
            static = read_static(kept, args.examples)
            for name in args.defences.split(","):
                if (suite, model, name) in done:
                    continue
                lab = make_lab(suite, f"{model}+{name}", args.examples, args.views)
                if static is None:
                    static = attack_static(undefended(lab), lab, effort)
                    torch.save([static.robust, static.x_adv], kept)
                line = {"suite": suite, "model": model, "defence": name, **measure(lab, static, effort), **protocol}
                with out.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
                print(suite, model, name, line["left"], line["cpu_seconds"], flush=True)  # noqa: T201


def read_static(path: Path, n: int) -> StaticAttack | None:
    """The attack on the undefended encoder from an earlier run, on the first n examples; None if it had fewer."""
    robust, x_adv = torch.load(path, weights_only=True) if path.is_file() else (torch.empty(0), torch.empty(0))
    return StaticAttack(robust[:n], x_adv[:n]) if len(robust) >= n else None


def key_of(line: Line) -> tuple[str, str, str]:
    """The suite, the encoder and the defence of a line."""
    return line["suite"], line["model"], line["defence"]


def read(path: Path) -> list[Line]:
    """The finished lines, the last one of each suite, encoder and defence."""
    texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return list({key_of(line): line for line in map(json.loads, texts)}.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Attack test-time defences adaptively.")
    parser.add_argument("out", help="the file of finished lines")
    parser.add_argument("--suites", default="thermal,image")
    parser.add_argument("--models", default="languagebind,tecoa,rlbind")
    parser.add_argument("--defences", default=",".join(DEFENCES))
    for name, value in (
        ("examples", 200),
        ("views", 64),
        ("targets", 9),
        ("steps", 50),
        ("duels", 3),
        ("duel-steps", 25),
        ("draws", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
