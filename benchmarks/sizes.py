"""The memory and time of every tower of real size, one example, on a CPU: `python benchmarks/sizes.py --out sizes.md`.

Random weights of ViT-L/14; each tower in a process of its own, with the text tower and two prompts, as in a run.
Memory is the peak of the process. Seconds are of CPU time, in one thread: a forward pass as the judge's, and one with a
gradient in the input as an attack's, in float32 and with bf16 autocast. `rlbench run --suite sizes --model
random:vit-l-14 --batch-size 1` runs the same towers as any run; memory is no number of a cell, so it is measured here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from tabulate import tabulate

MODALITIES = ("image", "thermal", "depth", "audio", "video")
HEAD = ["tower", "box", "GB loaded", "GB peak", "forward, s", "with gradient, s", "bf16 forward, s", "with gradient, s"]
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); import sizes; sizes.measure(*sys.argv[2:])"


def measure(model: str, modality: str) -> None:
    """Prints a tower's row as JSON."""
    import torch

    from rlbench.core.machine import peak_memory
    from rlbench.encoders.heads import ZeroShot
    from rlbench.encoders.models import load_encoder
    from rlbench.encoders.outputs import embed_text
    from rlbench.engine.attack.exact import lower

    torch.set_num_threads(1)
    encoder = load_encoder(model, modality)  # type: ignore[arg-type]
    with torch.no_grad():
        head = ZeroShot(encoder, modality, embed_text(encoder, ["a photo of a cat", "a photo of a dog"]))  # type: ignore[arg-type]
    loaded, box = peak_memory("cpu") / 1e9, head.box
    x = torch.full((1, *box.shape), (box.low + box.high) / 2).requires_grad_()
    times = []
    for classify in (head, lower(head, "bf16")):
        with torch.no_grad():
            times.append(spend(lambda c=classify: c(x)))  # type: ignore[misc]
        times.append(spend(lambda c=classify: torch.autograd.grad(c(x)[:, 0].sum(), x)))  # type: ignore[misc]
        if classify is head:
            peak = peak_memory("cpu") / 1e9
    shape = " x ".join(map(str, box.shape))
    click.echo(json.dumps([modality, shape, f"{loaded:.1f}", f"{peak:.1f}", *(f"{one:.1f}" for one in times)]))


def spend(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def page(model: str, rows: list[list[str]]) -> str:
    """The markdown page."""
    about = (__doc__ or "").split("\n\n")[1].strip()
    table = tabulate(rows, headers=HEAD, tablefmt="github", disable_numparse=True)
    return f"# Towers of real size on a CPU\n\n{model}. {about}\n\n{table}\n"


@click.command()
@click.option("--model", default="random:vit-l-14", show_default=True)
@click.option("--modality", "modalities", multiple=True, default=MODALITIES, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file, written after every row.")
def main(model: str, modalities: tuple[str, ...], out: Path | None) -> None:
    """Measure the memory and time of every tower."""
    rows = []
    for modality in modalities:
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), model, modality]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            raise click.ClickException(f"{modality}: {found.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(found.stdout.splitlines()[-1]))
        click.echo(" ".join(rows[-1]), err=True)
        if out:
            out.write_text(page(model, rows), encoding="utf-8")
    click.echo(page(model, rows))


if __name__ == "__main__":
    main()
