"""Searches the terms of training on several sensors, on validation scenes, at equal backward passes.

python benchmarks/sensor_terms.py run OUT.jsonl [--trials "rlbind;tecoa"] [--seeds 0,1] [--examples 300]
python benchmarks/sensor_terms.py table OUT.jsonl    # prints the table

`run` appends a line per trial and seed, and skips those that OUT.jsonl has, so it can be stopped at any time. A trial
is a short training of the four sensors of `scenes` from a bundled checkpoint, about a CPU minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import Any, get_args

import numpy as np
import torch
from accelerate import Accelerator
from sensor_trials import BACKBONE, TRIALS, Trial
from torch import Tensor

from rlbench.core import Threat
from rlbench.core.stats.metrics import margin
from rlbench.core.stats.paired import Pairs
from rlbench.core.threat import ball_of, parse_eps
from rlbench.encoders.heads import ZeroShot, zero_shot
from rlbench.encoders.models import resolve
from rlbench.tasks.scenes import Scenes, Sensor
from rlbench.training.adversary import attack_batch
from rlbench.training.examples import TrainSet, load_train_set
from rlbench.training.loop import Trainer
from rlbench.training.memory import Memory
from rlbench.training.prepare import load_trainable, prepare
from rlbench.training.recipe import load_recipe
from rlbench.training.stream import Run
from rlbench.training.types import Trainable

SENSORS: tuple[Sensor, ...] = get_args(Sensor)
FAR = 4  # times the recipes' radii, for the sum with one sensor attacked
CHUNK = 100
Line = dict[str, Any]


@dataclass(frozen=True)
class Scenery:
    """What all trials share: training examples and validation examples by sensor.

    Attributes:
        train: the train split.
        x: (n, *shape) of the seen classes, the same scenes in every sensor.
        y: (n,) their labels.
        unseen: x, y of the unseen classes.
    """

    train: Mapping[Sensor, TrainSet]
    x: Mapping[Sensor, Tensor]
    y: Tensor
    unseen: Mapping[Sensor, tuple[Tensor, Tensor]]


def render(examples: int, n: int) -> Scenery:
    """Renders `examples` training scenes and n validation scenes of seen and of unseen classes."""
    boxes = {m: load_trainable(f"languagebind:{BACKBONE}", m).boxes[m] for m in SENSORS}
    seen = {m: Scenes(modality=m).load(boxes[m], 0, n, "val") for m in SENSORS}
    unseen = {m: Scenes(modality=m, subset="unseen").load(boxes[m], 0, n, "val") for m in SENSORS}
    train = {m: load_train_set(Scenes(modality=m), boxes[m], examples, read=lambda done, of: None) for m in SENSORS}
    return Scenery(
        train,
        {m: part.x for m, part in seen.items()},
        seen["image"].y,
        {m: (part.x, part.y) for m, part in unseen.items()},
    )


@dataclass(frozen=True)
class Model:
    """A model of all sensors.

    Attributes:
        encoders: by sensor.
        passes: the forward and backward passes of a sensor since the backbone.
    """

    encoders: Mapping[Sensor, Trainable]
    passes: tuple[int, int]


def load(method: str) -> Model:
    """The bundled checkpoint of a method."""
    name = f"{method}:{BACKBONE}"
    return Model({m: load_trainable(name, m) for m in SENSORS}, count_passes(name))


def count_passes(name: str) -> tuple[int, int]:
    """The passes of a sensor's checkpoint since the backbone."""
    since = resolve(name).weights["image"].trained.get("since") or {}
    return int(since.get("forwards", 0)), int(since.get("backwards", 0))


def train(trial: Trial, seed: int, budget: int, scenery: Scenery) -> Model:
    """Trains a trial on all sensors, step by step.

    Args:
        trial: the method.
        seed: of the batches and of the adversary's starts.
        budget: the backward passes of a sensor since the backbone; those of the checkpoint it starts from count.
        scenery: the examples.
    """
    memory, accelerator = Memory(), Accelerator(cpu=True)
    trainers = []
    for modality in SENSORS:
        given = {**trial.fields, "seed": seed, "examples": 128}
        recipe = load_recipe(trial.method, trial.stage, modality=modality, backbone=BACKBONE, overrides=given)
        before = count_passes(recipe.init)
        steps = (budget - before[1]) // (recipe.passes()[1] * recipe.batch)
        run = prepare(replace(recipe, steps=steps), modality)
        trainers.append(Trainer(swap(run, scenery.train[modality]), accelerator, memory))
        trainers[-1].start(0)
    for k in range(steps):
        for trainer in trainers:
            trainer.step(k)
    own = [n * steps * recipe.batch for n in recipe.passes()]
    encoders = {m: trainer.run.encoder for m, trainer in zip(SENSORS, trainers, strict=True)}
    return Model(encoders, (before[0] + own[0], before[1] + own[1]))


def swap(run: Run, data: TrainSet) -> Run:
    """The run on examples that are rendered already."""
    return replace(run, streams=(replace(run.streams[0], data=data),))


def judge(head: ZeroShot, x: Tensor, y: Tensor, eps: Fraction, others: Tensor) -> Tensor:
    """Attacks one sensor by PGD-10 from a fixed random start.

    Args:
        head: the sensor's classifier.
        x: (n, *shape) in the box.
        y: (n,) the labels.
        eps: the Linf radius.
        others: (n, C) the sum of the logits of the sensors that are not attacked.

    Returns:
        (n,) bool, whether the sum of the logits is right clean and under attack.
    """
    ball, flags = ball_of(Threat("linf", eps), head.box), []
    for v, label, rest in zip(*(torch.split(rows, CHUNK) for rows in (x, y, others)), strict=True):

        def loss(u: Tensor, label: Tensor = label, rest: Tensor = rest) -> Tensor:
            return -margin(head(u) + rest, label)

        noise = 2 * torch.rand(v.shape, generator=torch.Generator().manual_seed(0)) - 1
        x_adv = attack_batch(v, loss, ball, noise=noise, steps=10, step=0.25)
        with torch.no_grad():
            flags.append((loss(v) < 0) & (loss(x_adv) < 0))
    return torch.cat(flags)


def measure(encoders: Mapping[Sensor, Trainable], scenery: Scenery) -> Line:
    """Measures a model: flags of each sensor and of the sum of all, clean and attacked."""
    task, y = Scenes(), scenery.y
    eps = {m: Fraction(parse_eps(load_recipe("tecoa", modality=m, backbone=BACKBONE).eps)) for m in SENSORS}
    heads = {m: zero_shot(encoders[m], m, task.classes, task.templates) for m in SENSORS}
    none = torch.zeros(len(y), len(task.classes))
    with torch.no_grad():
        z = {m: torch.cat([heads[m](v) for v in torch.split(scenery.x[m], CHUNK)]) for m in SENSORS}
    total = torch.stack(list(z.values())).sum(0)
    attacked = [judge(heads[m], scenery.x[m], y, FAR * eps[m], total - z[m]) for m in SENSORS]
    new = Scenes(subset="unseen")
    named = {m: zero_shot(encoders[m], m, new.classes, new.templates) for m in SENSORS}
    with torch.no_grad():
        unseen = {m: margin(named[m](x), label) > 0 for m, (x, label) in scenery.unseen.items()}
    return {
        "clean": {m: pack(margin(z[m], y) > 0) for m in SENSORS},
        "robust": {m: pack(judge(heads[m], scenery.x[m], y, eps[m], none)) for m in SENSORS},
        "unseen": {m: pack(flags) for m, flags in unseen.items()},
        "sum": pack(margin(total, y) > 0),
        "any 1": pack(torch.stack(attacked).all(0)),
    }


def pack(flags: Tensor) -> str:
    """(n,) bool as a text of 0 and 1."""
    return "".join("1" if one else "0" for one in flags.tolist())


def run(args: argparse.Namespace) -> None:
    """Appends the missing lines."""
    torch.set_num_threads(1)
    out, scenery = Path(args.out), render(args.train, args.examples)
    for seed in map(int, args.seeds.split(",")):
        for name in args.trials.split(";") if args.trials else TRIALS:
            if (name, seed) in {(line["trial"], line["seed"]) for line in read(out)}:
                continue
            begun, trial = process_time(), TRIALS[name]
            model = load(trial.method) if trial.bundled else train(trial, seed, args.budget, scenery)
            line = {
                "trial": name,
                "seed": seed,
                "train": args.train,
                "passes": model.passes,
                **measure(model.encoders, scenery),
            }
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line | {"cpu_seconds": round(process_time() - begun)}) + "\n")
            print(describe_row(line), flush=True)  # noqa: T201


def read(path: Path) -> list[Line]:
    """The finished lines."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def unpack(flags: str | Mapping[str, str]) -> np.ndarray:
    """The reverse of `pack`; flags by sensor one sensor after the other."""
    return np.array([flag == "1" for flag in (flags if isinstance(flags, str) else "".join(flags.values()))])


COLUMNS = ("clean", "robust", "unseen", "sum", "any 1")


def describe_row(line: Line) -> list[str]:
    """The cells of a trial: its name, seed, passes and accuracies in %."""
    forwards, backwards = (f"{n / 1000:.0f}k" for n in line["passes"])
    shares = [f"{100 * unpack(line[name]).mean():.1f}" for name in COLUMNS]
    return [line["trial"], str(line["seed"]), f"{forwards}, {backwards}", *shares]


RIVALS = (
    ("bundled rlbind", "bundled tecoa"),
    ("bundled rlbind", "tecoa, continued"),
    ("rlbind-alone", "fare-tecoa"),
    ("rlbind", "rlbind-alone"),
)


def compare(lines: Sequence[Line]) -> list[list[str]]:
    """Compares rivals, and each trial with an extra with the one without, on pairs pooled over seeds."""
    by = {(line["trial"], line["seed"]): line for line in lines}
    names = dict.fromkeys(line["trial"] for line in lines)
    rows = []
    for trial, base in (*RIVALS, *((name, name.partition(" + ")[0]) for name in names if " + " in name)):
        seeds = [seed for name, seed in by if name == trial and (base, seed) in by]
        if seeds:
            rows.append([f"{trial} against {base}"])
        for column in ("robust", "unseen", "any 1") if seeds else ():
            before, after = (np.concatenate([unpack(by[name, s][column]) for s in seeds]) for name in (base, trial))
            pairs = Pairs.of(before, after)
            p = f"p {pairs.p:.2g}" if pairs.p >= 0.0001 else "p < .0001"
            rows[-1].append(f"{0.0 - pairs.drop:+.1f} ({pairs.gained}, {pairs.lost}; {p})")
    return rows


def tabulate(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def table(args: argparse.Namespace) -> None:
    """Prints the trials, and the comparisons."""
    lines = read(Path(args.out))
    print(tabulate(("trial", "seed", "passes", *COLUMNS), [describe_row(line) for line in lines]))  # noqa: T201
    head = ("", "robust, over four sensors", "unseen", "sum, any 1")
    print("\n" + tabulate(head, compare(lines)))  # noqa: T201


def main() -> None:
    """Runs a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    search = commands.add_parser("run")
    search.add_argument("--trials", default="", help="names, separated by semicolons")
    search.add_argument("--seeds", default="0")
    search.add_argument("--examples", type=int, default=300, help="validation scenes")
    search.add_argument("--train", type=int, default=2000, help="training scenes")
    search.add_argument("--budget", type=int, default=24000, help="backward passes of a sensor since the backbone")
    search.set_defaults(command=run)
    show = commands.add_parser("table")
    show.set_defaults(command=table)
    for one in (search, show):
        one.add_argument("out")
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
