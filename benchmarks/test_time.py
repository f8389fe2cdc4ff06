"""Attacks the test-time defences adaptively, and writes the board leaderboards/test-time.md.

python benchmarks/test_time.py run OUT.jsonl [--suites thermal,image] [--models ...] [--defences ...] [--examples 200]
python benchmarks/test_time.py board OUT.jsonl    # prints the board

`run` appends a line per suite, encoder and defence, and skips those that OUT.jsonl has with as many examples, so it can
be stopped at any time. It needs CPU hours in full; the options `--views`, `--steps` and `--duels` are part of each line
and of the board.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from time import process_time
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rlbench.audit.adaptive import Effort, StaticAttack, attack_adaptively, attack_static, undefended
from rlbench.audit.lab import Lab, main_threat
from rlbench.core import Adversarial, Encoder, Modality, registry
from rlbench.core.stats.metrics import holm
from rlbench.core.stats.paired import Pairs
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
    effort = Effort(targets=args.targets, steps=args.steps, duels=args.duels, duel_steps=args.duel_steps)
    protocol = {"views": args.views, "targets": args.targets, "steps": args.steps, "duels": args.duels}
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
                    stream.write(json.dumps(line | {"duel_steps": args.duel_steps}) + "\n")
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


COLUMNS = (
    "encoder | defence | n | clean | oblivious | adaptive | static | adaptive minus static | forward, backward | traits"
)
HEAD = (f"| {COLUMNS} |", "| --- " * 10 + "|")


def unpack(flags: str) -> np.ndarray:
    """The reverse of `pack`: (n,) bool."""
    return np.array([flag == "1" for flag in flags])


def describe_defence(line: Line) -> str:
    """Its name, and how many views it has."""
    views = getattr(registry.make("defence", line["defence"]), "views", 0)
    return f"{line['defence']}, {min(views, line['views'])} views" if views else str(line["defence"])


def sort(lines: Sequence[Line]) -> list[Line]:
    """By suite and encoder as they came, then by defence as in DEFENCES."""
    suites, encoders = ([*dict.fromkeys(line[name] for line in lines)] for name in ("suite", "model"))
    return sorted(
        lines,
        key=lambda line: (
            suites.index(line["suite"]),
            encoders.index(line["model"]),
            DEFENCES.index(line["defence"]),
        ),
    )


def describe_row(line: Line) -> list[str]:
    """The cells of a row of the board."""
    flags = {name: unpack(line[name]) for name in ("clean", "oblivious", "adaptive", "static")}
    pairs = Pairs.of(flags["static"], flags["adaptive"])
    shares = [f"{100 * flags[name].mean():.1f}" for name in flags]
    p = f"{pairs.p:.3f}" if pairs.p >= 0.001 else "<0.001"
    change = f"{0.0 - pairs.drop:+.1f} ({pairs.gained}:{pairs.lost}, p {p})"
    passes = f"{line['forwards']}, {line['backwards']}"
    return [
        line["model"],
        describe_defence(line),
        str(line["n"]),
        *shares,
        change,
        passes,
        ", ".join(line["traits"]) or "-",
    ]


def find_gains(lines: Sequence[Line]) -> str:
    """The rows whose adaptive number is above the static encoder's, in a sentence; Holm-adjusted over the board."""
    pairs = [Pairs.of(unpack(line["static"]), unpack(line["adaptive"])) for line in lines]
    adjusted = holm([one.p for one in pairs])
    kept = [
        f"{line['suite']} {line['model']}+{line['defence']} ({-one.drop:+.1f})"
        for line, one, p in zip(lines, pairs, adjusted, strict=True)
        if one.drop < 0 and p < 0.05
    ]
    if not kept:
        return (
            "No defence keeps a gain over its static encoder that is significant (McNemar's exact test, Holm-adjusted)."
        )
    return f"Above their static encoder (McNemar's exact test, Holm-adjusted p < .05): {'; '.join(kept)}."


def render(lines: Sequence[Line]) -> str:
    """The board."""
    costs = [line for line in lines if line["suite"] == VIT]
    lines = sort([line for line in lines if line["suite"] != VIT])
    first = lines[0]
    protocol = ABOUT.format(**first)
    parts = ["# Test-time defences under adaptive attack", protocol, find_gains(lines)]
    for suite in dict.fromkeys(line["suite"] for line in lines):
        rows = [f"| {' | '.join(describe_row(line))} |" for line in lines if line["suite"] == suite]
        parts += [f"## {suite}, {first['threat']}", "\n".join([*HEAD, *rows])]
    return "\n\n".join(parts + (render_costs(costs) if costs else [])) + "\n"


def render_costs(costs: Sequence[Line]) -> list[str]:
    """The section of what an answer costs, each defence with all its views."""
    own = {line["defence"]: line for line in costs}
    alone = own.pop("static")["cpu_seconds"]
    rows = [
        f"| {describe_defence(line | {'views': 10**6})} | {line['forwards']}, {line['backwards']} | "
        f"{line['cpu_seconds']:.2f} | {line['cpu_seconds'] / alone:.0f} |"
        for line in own.values()
    ]
    return [f"## Cost of an answer\n\n{COSTS.format(alone=alone)}", "\n".join([*COST_HEAD, *rows])]


COSTS = """\
A ViT-B/32 with random weights, one image of 224 x 224, 100 classes, one CPU thread; each defence with all its views.
The tower alone takes {alone:.2f} s. Made by `python benchmarks/test_time_cost.py benchmarks/test_time.jsonl`."""
COST_HEAD = ("| defence | forward, backward | CPU s | times the tower |", "| --- | --- | --- | --- |")

ABOUT = """\
What a test-time defence is worth when the attack knows it. All numbers are accuracies in %, of the bundled mini
encoders on the first n test examples.

- *oblivious*: under apgd-ce and apgd-t (50 steps, {targets} targets) on the encoder without the defence, judged with
  the defence. This is what most papers report, and it is not robustness: the attack does not see the defence.
- *adaptive*: per example the worst of those points and of attacks that know the defence: past the first error of the
  static encoder, through the pipeline (its own steps constant; fresh draws at every step), through its double backward
  where it is smooth, and through each branch of a gate; {steps} steps untargeted, then {duel_steps} against each of
  the {duels} likeliest classes. Judged by the mean over 5 draws.
- *static*: the encoder without the defence, under the first attack. *adaptive minus static*: points (examples right
  only with the defence : only without it, p of McNemar's exact test). An adaptive number is an upper bound, like every
  number of an attack; a small gain over the static number may be the attack's weakness, which has fewer steps than the
  one on the static encoder.
- *forward, backward*: passes of the encoder for one answer. Without a defence: 1, 0.

Defences with views have fewer of them here than by default and in their papers (up to 64). What each defence is, what
is assumed about it and how it is attacked: the docstrings in `rlbench/encoders/defences/`. Made by
`python benchmarks/test_time.py board benchmarks/test_time.jsonl`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Test-time defences under adaptive attack.")
    parser.add_argument("what", choices=("run", "board"))
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
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args(argv)
    if args.what == "run":
        run(args)
    else:
        sys.stdout.write(render(read(Path(args.out))))


if __name__ == "__main__":
    main()
