"""Checks and times rlbench on a GPU: `python benchmarks/gpu.py --out benchmarks/gpu.md`, in at most 8 minutes.

The table is written after every row, so that a run that is cut keeps what it has; a part that would begin after --limit
seconds is left out, and said so. `--tiny` runs the same parts at a tiny size on a CPU, to see that they run.

1. Agreement: flags of the bundled models under APGD-CE on the GPU and on the CPU, and the logits of a random tower.
2. Evaluation of a random ViT-L/14 with 100 classes under PGD, of whose answers a part breaks: passes (forward and
   backward) a second and their share of what the card's own matrix product reaches, peak memory, survivors judged in
   float32, by precision and batch; the last short search in float32; pyautoattack's APGD beside it.
3. Training of rlbind, stages 1 and 2, with batches of 128: steps a minute, peak memory, hours for 20,000 steps.
4. The towers of video and audio: a clean and an attacked batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from gpu_setting import TINY, WORLDS, Row, Setting, count_flop, measure, reach_peak, sync
from random_vit import SIZES, draw, make_bench, make_head
from torch import Tensor, nn
from torch.nn.functional import normalize

import rlbench
from rlbench.attacks.apgd import APGD
from rlbench.attacks.pgd import PGD
from rlbench.attacks.search.pool import clean_logits, run_alone
from rlbench.core import Adversarial, Ball, Clean, Modality, Threat
from rlbench.core.batch import BatchSize
from rlbench.core.machine import full_float32, search_float32
from rlbench.core.precision import Precision
from rlbench.core.seeds import ExampleStreams
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import ZeroShot
from rlbench.encoders.models import load_encoder
from rlbench.engine.attack.exact import AGAIN, BROKE, Confirmed, lower
from rlbench.engine.attack.judge import judge
from rlbench.engine.attack.meter import Meter
from rlbench.engine.block.bench import prepare
from rlbench.engine.block.evaluate import evaluate
from rlbench.engine.cells.groups import Group, group_of
from rlbench.engine.plan.fit import choose_batch_size

RADII = tuple(Fraction(k, 680) for k in (1, 2, 4, 8, 16, 32))  # tried for part 2


def agree(s: Setting) -> Iterator[Row]:
    """Part 1."""
    for world in WORLDS:
        attack = Adversarial("apgd-ce", Threat("linf", Fraction(4, 255)), (("steps", 2 * s.steps),))
        suite = replace(load_suite(world), perturbations=(Clean(), attack))
        found = []
        for device in ("cpu", s.device):
            bench = prepare(suite, "rlbind", device=device)
            with full_float32():
                clean = evaluate(bench, [Group()], 0, s.flags, None, lambda n: None)[0]
                block = evaluate(bench, [group_of(attack)], 0, s.flags, clean, lambda n: None)[0]  # type: ignore[arg-type]
            found.append(torch.from_numpy(block.correct))  # type: ignore[union-attr]
        yield f"flags of {world}, rlbind", f"{int((found[0] != found[1]).sum())} of {s.flags} differ from the CPU's"
    make_head.cache_clear()
    x = draw(make_head(s.tower).box.shape[-1], 0, 8)
    with torch.no_grad(), full_float32():
        here, there = make_head(s.tower)(x), make_head(s.tower, s.device)(x.to(s.device)).cpu()
    yield f"logits of a random {s.tower}", f"differ by at most {float((here - there).abs().max()):.2g} from the CPU's"


def choose_eps(s: Setting, head: ZeroShot, x: Tensor, y: Tensor) -> Fraction:
    """The first of RADII at which PGD breaks a third of these examples, or the last."""
    for eps in RADII:
        found = rlbench.attack(head, x, y, "pgd", eps=str(eps), steps=s.steps, batch_size=len(x))
        if int(found.broken.sum()) >= len(x) / 3:
            return eps
    return RADII[-1]


def search(s: Setting, head: ZeroShot, x: Tensor, y: Tensor, eps: Fraction, precision: Precision, batch: int) -> Row:
    """One search of part 2, without the last short search."""
    ball = Ball("linf", float(eps), 0.0, 1.0)
    meter, streams = Meter(head, len(x), batch_size=BatchSize(batch, s.device)), ExampleStreams(0, _ids(x), "gpu")
    low = meter if precision == "fp32" else Confirmed(meter.twin(lower(head, precision)), meter, y)
    points = list[Tensor]()

    def work() -> None:
        with full_float32(), search_float32(precision):
            attack = PGD(steps=s.steps).search(x, y, ball, streams, lambda: clean_logits(low, x))
            points.append(meter.attempt(lambda: run_alone(low, attack)))

    seconds, memory = measure(s.device, work)
    with full_float32():
        left = int(judge(meter, points[-1], x, y, ball).correct.sum())
    rate = int(meter.backwards.sum()) / seconds
    share = 100 * rate * count_flop(SIZES[s.tower]) / reach_peak(s.device, precision)
    text = f"{rate:.1f} passes/s, {share:.0f}% of the peak, {memory:.1f} GB, {left} of {len(x)} survive"
    return f"pgd-{s.steps} in {precision}, batches of {meter.batch_size}", text


def _ids(x: Tensor) -> tuple[str, ...]:
    return tuple(map(str, range(len(x))))


def attack_random(s: Setting) -> Iterator[Row]:
    """Part 2."""
    head, bench = make_head(s.tower, s.device), make_bench(s.tower, examples=s.examples, device=s.device)
    examples = bench.suite.task.load(head.box, 0, s.examples)
    x, y = examples.x.to(s.device), examples.y.to(s.device)
    chosen = choose_batch_size(bench)
    yield "batch size that auto chooses", str(chosen)
    eps = choose_eps(s, head, x[:16], y[:16])
    yield "eps in Linf", str(eps)
    for precision in s.precisions:
        for batch in dict.fromkeys(size or chosen for size in s.batches):
            yield search(s, head, x, y, eps, precision, batch)
    yield compare_pyautoattack(s, head, x[:64], y[:64], eps)
    yield search_again(s, eps, s.precisions[-1])


def search_again(s: Setting, eps: Fraction, precision: Precision) -> Row:
    """What the last short search in float32 breaks, of an eighth of the examples."""
    n = max(1, s.examples // 8)
    attack = Adversarial("pgd", Threat("linf", eps, precision=precision), (("steps", s.steps),))
    bench = make_bench(s.tower, attack, examples=n, device=s.device)
    with full_float32():
        clean = evaluate(bench, [Group()], 0, n, None, lambda k: None)[0]
        begun = sync(s.device)
        block = evaluate(bench, [group_of(attack)], 0, n, clean, lambda k: None)[0]  # type: ignore[arg-type]
    seconds, sums = sync(s.device) - begun, block.evidence  # type: ignore[union-attr]
    text = f"broke {sums[BROKE]} of the {sums[AGAIN]} survivors of {n} examples; {seconds:.1f} s with the first search"
    return f"last search in float32 after {precision}", text


class Module(nn.Module):
    """A classifier as pyautoattack expects it."""

    def __init__(self, head: ZeroShot) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, C) logits."""
        return self.head(x)


def compare_pyautoattack(s: Setting, head: ZeroShot, x: Tensor, y: Tensor, eps: Fraction) -> Row:
    """APGD-CE of pyautoattack and of rlbench at the same steps, both in float32."""
    what = f"apgd-ce, {s.steps} steps, fp32; pyautoattack's"
    try:
        from pyautoattack.autopgd_base import APGDAttack
    except ImportError:
        return what, "pyautoattack is not installed"
    meter, ball = Meter(head, len(x), batch_size=len(x)), Ball("linf", float(eps), 0.0, 1.0)
    peer = APGDAttack(Module(head), n_iter=s.steps, norm="Linf", eps=float(eps), seed=0, device=s.device, loss="ce")
    found = list[Tensor]()

    def own() -> None:
        streams = ExampleStreams(0, _ids(x), "gpu")
        found.append(run_alone(meter, APGD(steps=s.steps).search(x, y, ball, streams, lambda: clean_logits(meter, x))))

    with full_float32():
        seconds, _ = measure(s.device, own)
        theirs, _ = measure(s.device, lambda: found.append(peer.perturb(x, y)))
        left = [int((torch.cat([head(p) for p in points.split(16)]).argmax(1) == y).sum()) for points in found]
    return what, f"{seconds:.1f} s and {left[0]} survivors; {theirs:.1f} s and {left[1]} of {len(x)}"


def train(s: Setting) -> Iterator[Row]:
    """Part 3."""
    from rlbench.training.loop import Trainer
    from rlbench.training.memory import Memory
    from rlbench.training.prepare import prepare as prepare_run
    from rlbench.training.recipe import load_recipe
    from rlbench.training.run import make_accelerator

    steps, fields = s.training
    for stage in (1, 2):
        given = {
            "init": "random",
            "examples": 2 * dict(fields)["batch"],
            "steps": steps + 1,
            "loaders": 0,
            **dict(fields),
        }  # type: ignore[operator]
        recipe = load_recipe("rlbind", stage, modality="image", backbone=s.backbone, overrides=given)
        trainer = Trainer(
            prepare_run(recipe, "image"),
            make_accelerator(s.device, recipe, announce=lambda text: None),
            Memory(),
        )
        trainer.start(0)
        trainer.step(0)  # compiles, and fills caches
        seconds, memory = measure(s.device, lambda t=trainer: [t.step(k) for k in range(1, steps + 1)])  # type: ignore[misc]
        each = seconds / steps
        text = f"{60 / each:.1f} steps a minute, {memory:.1f} GB, {20_000 * each / 3600:.1f} hours for 20,000 steps"
        parts = recipe.accumulate * trainer.pieces
        yield f"rlbind:{s.backbone}, stage {stage}, batches of {recipe.batch} in {parts} parts", text
        del trainer


def attack_clips(s: Setting) -> Iterator[Row]:
    """Part 4."""
    names: tuple[Modality, ...] = ("video", "audio")
    for modality in names:
        encoder = load_encoder(s.model, modality)
        if isinstance(encoder, nn.Module):
            encoder.to(s.device)
        box, g = encoder.boxes[modality], torch.Generator().manual_seed(0)
        x = (box.low + (box.high - box.low) * torch.rand(s.clips, *box.shape, generator=g)).to(s.device)
        width = encoder.embed(x[:1], modality).shape[1]
        head = ZeroShot(encoder, modality, normalize(torch.randn(10, width, generator=g), dim=1).to(s.device))
        with torch.no_grad():
            y = head(x).argmax(1)
            seconds, memory = measure(s.device, lambda h=head, x=x: h(x))  # type: ignore[misc]
        shape = " x ".join(map(str, box.shape))
        yield f"{modality}, {shape}: a clean batch of {s.clips}", f"{seconds:.2f} s, {memory:.1f} GB"
        about: dict[str, Any] = {"low": box.low, "high": box.high, "batch_size": s.clips, "steps": s.steps}
        for precision in ("fp32", s.precisions[-1]):
            work = partial(rlbench.attack, head, x, y, "pgd", eps="1/255", precision=precision, **about)
            seconds, memory = measure(s.device, work)
            yield f"{modality}: the batch attacked, pgd-{s.steps}, {precision}", f"{seconds:.1f} s, {memory:.1f} GB"
        del encoder, head


PARTS = {
    "1. Agreement": agree,
    "2. Evaluation": attack_random,
    "3. Training": train,
    "4. Video and audio": attack_clips,
}


def name(device: str) -> str:
    """The device's name and torch's version."""
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "a CPU, at a tiny size"
    return f"{card}, torch {torch.__version__}"


def page(rows: dict[str, list[Row]], device: str) -> str:
    """The markdown page of what is known so far."""
    about = (__doc__ or "").split("\n\n", 1)[1].strip()
    parts = []
    for part, found in rows.items():
        table = "\n".join(f"| {what} | {text} |" for what, text in found)
        parts.append(f"## {part}\n\n| what | found |\n| --- | --- |\n{table}\n")
    return f"# On a GPU\n\n{name(device)}.\n\n{about}\n\n" + "\n".join(parts)


@click.command()
@click.option("--device", default="cuda:0", show_default=True)
@click.option("--tiny", is_flag=True, help="Run all parts at a tiny size on the CPU.")
@click.option("--limit", type=float, default=440.0, show_default=True, help="Begin no row after so many seconds.")
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file, written after every row.")
def main(device: str, tiny: bool, limit: float, out: Path | None) -> None:
    """Check and time rlbench on a GPU."""
    setting = TINY if tiny else Setting(device)
    if setting.device.startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException(f"torch {torch.__version__} sees no GPU; --tiny runs on a CPU")
    begun, rows = time.perf_counter(), dict[str, list[Row]]()
    for part, make in PARTS.items():
        rows[part] = []
        left = make(setting)
        while True:
            if time.perf_counter() - begun > limit:
                rows[part].append(("left out", f"{limit:.0f} seconds had passed"))
                break
            try:
                row = next(left, None)
            except Exception as error:  # a failed row must not cost the others
                row = ("failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
                left = iter(())
            if row is None:
                break
            rows[part].append(row)
            click.echo(f"{time.perf_counter() - begun:6.1f} s  {row[0]}: {row[1]}")
            if out:
                out.write_text(page(rows, setting.device), encoding="utf-8")
    if out:
        out.write_text(page(rows, setting.device), encoding="utf-8")


if __name__ == "__main__":
    main()
