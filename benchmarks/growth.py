"""How a run grows with its examples: time, memory, and the driver's own share of the CPU time.

    python benchmarks/growth.py [--examples 20000] [--ray] > benchmarks/growth.md

The linear oracle on blobs under pgd, apgd-ce and a worst case, with 1 and 2 workers and, with --ray, on a Ray of 2 CPU
cores. The driver is the process that plans, hands out jobs and writes the store; with one worker it does the work too.
Seconds are of CPU time, so that another load on the machine changes them little; of Ray's workers they are the blocks'
wall time. Memory is the driver's peak. Each run is a process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import click

SUITE = """
suite: growth
version: 1
summary: Attacks of the linear oracle.
modality: image
task: {name: blobs}
examples: 100
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255, 8/255], steps: 100}
  - {attack: apgd-ce, norm: linf, eps: 4/255}
  - worst
"""
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import growth; growth.measure(*sys.argv[2:])"


def measure(suite: str, out: str, examples: str, workers: str, executor: str) -> None:
    """Runs a plan in this process and prints its cost as JSON; a run of few examples first, so that all is loaded."""
    from rlbench.engine.run.runner import execute, plan

    options = {"workers": int(workers), "executor": executor, "device": "cpu"}
    execute(plan(suite, "linear", store=f"{out}-first", examples=512, **options))
    before = _cpu()
    planned = plan(suite, "linear", store=out, examples=int(examples), **options)
    records = execute(planned)
    own, children = (after - start for after, start in zip(_cpu(), before, strict=True))
    seconds = sum(float(record.provenance["seconds"]) for record in records)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(json.dumps({"driver": own, "workers": children, "work": seconds, "MB": peak}))


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process, and of its children that have ended."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (used.ru_utime + used.ru_stime for used in found)
    return own, children


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--ray", action="store_true")
    chosen = parser.parse_args()
    click.echo("# Growth\n\n`" + " ".join(["python benchmarks/growth.py", *sys.argv[1:]]) + "`\n")
    click.echo((__doc__ or "").split("\n\n", 2)[2].strip() + "\n")
    click.echo(
        "| workers | examples | driver, s | workers, s | driver's share | per 1000 examples, s | driver's peak, MB |"
    )
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    kinds = [("local", 1), ("local", 2), *([("ray", 2)] if chosen.ray else [])]
    for executor, workers in kinds:
        for examples in (chosen.examples // 4, chosen.examples // 2, chosen.examples):
            click.echo(_row(executor, workers, examples))


def _row(executor: str, workers: int, examples: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder, "growth.yaml")
        suite.write_text(SUITE)
        words = [str(suite), f"{folder}/out", str(examples), str(workers), executor]
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), *words]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    # Ray's workers are no children: their part is the blocks' own time, which on a busy machine is longer
    theirs = 0.0 if workers == 1 else found["workers"] if executor == "local" else found["work"]
    whole = found["driver"] + theirs
    share = "-" if workers == 1 else f"{100 * found['driver'] / whole:.1f}%"
    numbers = f"{found['driver']:.1f} | {theirs:.1f} | {share} | {1000 * whole / examples:.2f} | {found['MB']:.0f}"
    return f"| {executor}, {workers} | {examples:,} | {numbers} |"


if __name__ == "__main__":
    main()
