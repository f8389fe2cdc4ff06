"""Prints the board leaderboards/test-time.md from the lines of test_time.py.

python benchmarks/test_time_board.py benchmarks/test_time.jsonl --longer benchmarks/test_time_longer.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from test_time import DEFENCES, VIT, Line, key_of, read

from rlbench.core import registry
from rlbench.core.stats.metrics import holm
from rlbench.core.stats.paired import Pairs

COLUMNS = "encoder | defence | n | clean | oblivious | adaptive | longer | static | worst minus static"
HEAD = (f"| {COLUMNS} | forward, backward | traits |", "| --- " * 11 + "|")


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


def join_longer(lines: Sequence[Line], longer: Sequence[Line]) -> list[Line]:
    """The lines with `longer` and `worst`: their flags under the longer attack, and under both.

    Raises: ValueError: the longer attack had other examples or views, so that its flags are of something else.
    """
    found = {key_of(line): line for line in longer}
    for line in lines:
        other = found.get(key_of(line), line)
        if any(other[name] != line[name] for name in ("n", "views", "clean", "static")):
            raise ValueError(f"{' '.join(key_of(line))}: the longer attack has other examples, views or targets")
    flags = [(line, found.get(key_of(line), line)["adaptive"]) for line in lines]
    return [
        line
        | {"longer": other if key_of(line) in found else ""}
        | {"worst": "".join(map(min, zip(line["adaptive"], other, strict=True)))}
        for line, other in flags
    ]


def describe_row(line: Line) -> list[str]:
    """The cells of a row of the board."""
    flags = {name: unpack(line[name]) for name in ("clean", "oblivious", "adaptive", "longer", "static")}
    pairs = Pairs.of(flags["static"], unpack(line["worst"]))
    shares = [f"{100 * one.mean():.1f}" if len(one) else "-" for one in flags.values()]
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
    """The rows whose worst number is above the static encoder's, in a sentence; Holm-adjusted over the board."""
    pairs = [Pairs.of(unpack(line["static"]), unpack(line["worst"])) for line in lines]
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


def render(lines: Sequence[Line], longer: Sequence[Line] = ()) -> str:
    """The board; `longer` are lines of the same examples under a longer attack."""
    costs = [line for line in lines if line["suite"] == VIT]
    lines = join_longer(sort([line for line in lines if line["suite"] != VIT]), longer)
    first = lines[0]
    protocol = ABOUT.format(**first) + (LONGER.format(**longer[0]) if longer else "")
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
- *static*: the encoder without the defence, under the first attack. *worst minus static*: points of the worst of
  *adaptive* and *longer* (examples right only with the defence : only without it, p of McNemar's exact test). An
  adaptive number is an upper bound, like every number of an attack; a small gain over the static number may be the
  attack's weakness, which has fewer steps than the one on the static encoder.
- *forward, backward*: passes of the encoder for one answer. Without a defence: 1, 0.

Defences with views have fewer of them here than by default and in their papers (up to 64). What each defence is, what
is assumed about it and how it is attacked: the docstrings in `rlbench/encoders/defences/`. Made by
`python benchmarks/test_time_board.py benchmarks/test_time.jsonl --longer benchmarks/test_time_longer.jsonl`."""
LONGER = """

*longer* is the same attack with {steps} steps, then {duel_steps} against each of the {duels} likeliest classes, and the
mean of {draws} fresh draws at every step. It ran on rows that gained under the short one; where it is missing, a gain
may be the short attack's weakness."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="The board of test-time defences.")
    parser.add_argument("lines", type=Path, help="the lines of test_time.py")
    parser.add_argument("--longer", type=Path, help="lines of the same examples under a longer attack")
    args = parser.parse_args(argv)
    sys.stdout.write(render(read(args.lines), read(args.longer) if args.longer else ()))


if __name__ == "__main__":
    main()
