"""The project's APGD against pyautoattack's on bundled encoders: `python tests/compare_autoattack.py --examples 200`.

Per row: survivors of both from the same starting points with the number of flags that differ, survivors of both from
other seeds, and passes (forward and backward, per clean-correct example).
"""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction
from itertools import pairwise

import torch
from test_attacks_peer import own, peer

from rlbench.core import Ball, Threat
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.core.threat import ball_of
from rlbench.encoders.heads import ZeroShot, zero_shot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.meter import Meter

HEAD = (
    "suite    model         attack   threat        n  same: own peer differ"
    "  other: own peer  f+b: own   peer  s: own peer"
)
BATCHES = (1, 7, 64)


def row(
    classify: ZeroShot, name: str, ball: Ball, seed: int, examples: tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]
) -> str:
    """One line of the table."""
    x, y, ids = examples
    with torch.no_grad():
        right = (classify(x).argmax(1) == y).nonzero()[:, 0]
    x, y = x[right], y[right]
    streams = ExampleStreams(seed, tuple(ids[i] for i in right.tolist()), f"compare {name}")
    again = ExampleStreams(seed + 1, streams.ids, streams.scope)
    meters = [Meter(classify, len(x)) for _ in range(4)]
    clock = [time.process_time()]
    flags = []
    for run, meter, start in (
        (own, meters[0], streams),
        (peer, meters[1], streams),
        (own, meters[2], again),
        (peer, meters[3], None),
    ):
        flags.append(run(name, meter, x, y, ball, start, 100))  # type: ignore[operator]
        clock.append(time.process_time())
    alive = [int(flag.sum()) for flag in flags]
    differ = int((flags[0] != flags[1]).sum())
    cost = [int((m.forwards + m.backwards).sum()) / 2 / len(x) for m in meters]
    seconds = [b - a for a, b in pairwise(clock)]
    verdict = "" if alive[2] <= alive[3] + max(1, 0.01 * len(x)) and differ == 0 else "  <-- differs"
    return (
        f"{len(x):4d}  {alive[0]:9d} {alive[1]:4d} {differ:6d}   {alive[2]:10d} {alive[3]:4d}   "
        f"{cost[0]:8.1f} {cost[1]:6.1f}   {seconds[0]:6.0f} {seconds[1]:4.0f}{verdict}"
    )


def same(
    classify: ZeroShot, name: str, ball: Ball, seed: int, examples: tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]
) -> str:
    """From the same starting points: survivors of the original, and the flags of ours that differ from its."""
    x, y, ids = examples
    with torch.no_grad():
        right = (classify(x).argmax(1) == y).nonzero()[:, 0]
    x, y = x[right], y[right]
    streams = ExampleStreams(seed, tuple(ids[i] for i in right.tolist()), f"compare {name}")
    theirs = peer(name, classify, x, y, ball, streams, 100)
    differ = {
        size: int((own(name, classify, x, y, ball, streams, 100, batch_size=size) != theirs).sum()) for size in BATCHES
    }
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    shuffled = own(name, classify, x[order], y[order], ball, streams.take(order.tolist()), 100)
    found = [f"{size}: {n}" for size, n in differ.items()] + [f"shuffled: {int((shuffled != theirs[order]).sum())}"]
    return f"{len(x):4d} survivors {int(theirs.sum()):4d}  flags that differ at batch size {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--suites", nargs="+", default=["thermal", "image"])
    parser.add_argument("--models", nargs="+", default=["languagebind", "rlbind"])
    parser.add_argument("--attacks", nargs="+", default=["apgd-ce", "apgd-t"])
    parser.add_argument("--threats", nargs="+", default=["linf 4/255"], help="such as 'linf 4/255' 'l2 0.5'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--same", action="store_true", help="only the same starts, at batch sizes 1, 7, 64 and shuffled"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write("" if options.same else HEAD + "\n")
    for suite_name in options.suites:
        suite = load_suite(suite_name)
        for model in options.models:
            encoder = load_encoder(model, suite.modality)
            box = encoder.boxes[suite.modality]
            found = suite.task.load(box, 0, options.examples)
            classify = zero_shot(encoder, suite.modality, suite.task.classes, suite.task.templates)
            for threat in options.threats:
                norm, eps = threat.split()
                ball = ball_of(Threat(norm, Fraction(eps)), box)
                for name in options.attacks:
                    line = (same if options.same else row)(
                        classify, name, ball, options.seed, (found.x, found.y, found.ids)
                    )
                    sys.stdout.write(f"{suite_name:8s} {model:13s} {name:8s} {threat:10s} {line}\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
