"""A ViT-B/32 on a CPU under rlbench, pyautoattack, torchattacks and a bare loop: `python benchmarks/vit.py`.

APGD-CE of --steps steps on smooth random images in a ball so small that nothing breaks, so that all three do the whole
protocol on every example, in one batch, and judge its points. The bare loop is that many forward passes with their
backward and nothing else. Seconds are of CPU time, the least of --repeat rounds in which the sides take turns. `ratio`
is the faster peer's seconds over rlbench's, `of the loop` the bare loop's over rlbench's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from counting import Counter
from random_vit import SIZES, RandomVision, make_bench
from tabulate import tabulate
from torch import Tensor, nn

from rlbench.attacks.apgd import APGD
from rlbench.core import Ball
from rlbench.core.machine import reproducible
from rlbench.core.seeds import ExampleStreams
from rlbench.encoders.heads import ZeroShot
from rlbench.engine.attack.judge import attack_and_judge, judge
from rlbench.engine.attack.meter import Meter

EPS = 1e-6
SIDES = ("bare loop", "rlbench", "pyautoattack", "torchattacks")
HEAD = ["examples", *(f"{side}, s" for side in SIDES), "ratio", "of the loop", "forwards", "peers'"]


class Module(nn.Module):
    """A classifier as the peers expect it."""

    def __init__(self, head: ZeroShot) -> None:
        super().__init__()
        self.head = head
        self.register_parameter("device_of", nn.Parameter(torch.zeros(1), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C) logits."""
        return self.head(x)


def sides(head: ZeroShot, x: Tensor, y: Tensor, steps: int) -> dict[str, Callable[[], object]]:
    """The work of every side by name."""
    from pyautoattack.autopgd_base import APGDAttack
    from torchattacks import APGD as TorchAPGD

    module = Module(head).eval()
    autoattack = APGDAttack(module, n_iter=steps, norm="Linf", eps=EPS, seed=0, device="cpu", loss="ce")
    torchattack = TorchAPGD(module, norm="Linf", eps=EPS, steps=steps, loss="ce")

    def own() -> int:
        meter, ball = Meter(head, len(x), batch_size=len(x)), Ball("linf", EPS, 0.0, 1.0)
        judge(meter, x, x, y, ball)
        streams = ExampleStreams(0, tuple(map(str, range(len(x)))), "vit")
        found = attack_and_judge(APGD(steps=steps), meter, x, y, ball, streams)
        return int(found.judgement.correct.sum())

    def loop() -> None:
        for _ in range(steps):
            point = x.clone().requires_grad_()
            torch.autograd.grad(head(point).sum(), point)

    def judged(attack: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        def work() -> int:
            with torch.no_grad():
                head(x)
            found = attack(x, y).detach()
            with torch.no_grad():
                return int((head(found).argmax(1) == y).sum())

        return work

    return {
        "bare loop": loop,
        "rlbench": own,
        "pyautoattack": judged(autoattack.perturb),
        "torchattacks": judged(torchattack),
    }


def compare(size: str, examples: int, steps: int, repeat: int) -> list[object]:
    """A row of the table."""
    bench, counter = make_bench(size, examples=examples), Counter()
    found = bench.suite.task.load(bench.box, 0, examples)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    forwards = dict.fromkeys(SIDES, 0)
    with reproducible("cpu"), counter.on(RandomVision):
        for work in sides(bench.classifier, found.x[:1], found.y[:1], 1).values():
            work()  # loads what only the first call loads
        for _ in range(repeat):
            for side, work in sides(bench.classifier, found.x, found.y, steps).items():
                begun = time.process_time()
                spent, _ = counter.spend(work)
                seconds[side].append(time.process_time() - begun)
                forwards[side] = spent.fb + spent.f
    best = [min(seconds[side]) for side in SIDES]
    ratio, share = min(best[2:]) / best[1], best[0] / best[1]
    counts = forwards["rlbench"], " / ".join(str(forwards[side]) for side in SIDES[2:])
    return [examples, *(f"{one:.1f}" for one in best), f"{ratio:.2f}", f"{share:.2f}", *counts]


@click.command()
@click.option("--examples", "sizes", multiple=True, type=click.IntRange(1), default=(8, 32), show_default=True)
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True)
@click.option("--repeat", type=click.IntRange(1), default=2, show_default=True)
@click.option("--size", type=click.Choice(sorted(SIZES)), default="vit-b-32", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(sizes: tuple[int, ...], steps: int, repeat: int, size: str, out: Path | None) -> None:
    """Compare the CPU time of rlbench with that of its peers on one real-sized tower."""
    rows = []
    for examples in sizes:
        rows.append(compare(size, examples, steps, repeat))
        click.echo(" ".join(map(str, rows[-1])), err=True)
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    table = tabulate(rows, headers=HEAD, tablefmt="github", disable_numparse=True)
    click.echo(table)
    if out:
        out.write_text(f"# {size} on a CPU\n\n{about}\n\n{steps} steps, one thread.\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
