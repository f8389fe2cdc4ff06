"""What an attacker of the texts costs, alone and with the input: `python benchmarks/text_edits.py --out text_edits.md`.

Accuracy in % on n test examples of the suite image-text. `template`, `typo-shared` and `typo-any` (one edit) are what
the attacker of the texts chooses; `input` is the attack `adaptive`, Linf 4/255; `joint` is the worst case of text,
input and both. The first rows are bundled encoders, whose text tower hashes words: an edit changes the hash of a whole
word, and a class loses its hypernym, so those numbers are about hashing. The others are the same image towers, bound
to the pretrained text encoder all-MiniLM-L6-v2 by a linear map (`minilm.py`). There, too, one edit moves a name far:
its prompt has a median cosine of 0.50 to that of its own name, and two classes have 0.42. An attacker who edits the
name of the true class alone leaves rlbind 3 of 100 examples (one template).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
from tabulate import tabulate

from rlbench.core import Clean, Edited, Record, Worst
from rlbench.core.threat import text_of
from rlbench.engine.run.runner import run
from rlbench.store.flags import flags_of

NAMES = ("languagebind", "tecoa", "rlbind")
MODELS = (*NAMES, *(f"minilm:{name}" for name in NAMES))
LEVELS = ("template", "typo-shared", "typo-any")
HEAD = ["model", "clean", "input", *LEVELS, *(f"joint, {level}" for level in LEVELS)]


def find(records: list[Record], level: str | None, *, attacked: bool) -> Record:
    """The record of a choice of texts, or of none: alone, or the worst case with attacks on the input."""
    kinds = Worst if attacked else (Clean, Edited)
    own = [record for record in records if isinstance(record.perturbation, kinds)]
    return next(r for r in own if (text.text if (text := text_of(r.perturbation)) else None) == level)


def measure(model: str, examples: int, store: str) -> list[object]:
    """A row of the table. Raises: AssertionError: an example survives both attacks, and not one of them alone."""
    records = run("image-text", model, examples=examples, out=store, workers=1)
    plain, attack = find(records, None, attacked=False), find(records, None, attacked=True)
    text = [find(records, level, attacked=False) for level in LEVELS]
    joint = [find(records, level, attacked=True) for level in LEVELS]
    for alone, both in zip(text, joint, strict=True):
        assert not (flags_of(both) & ~(flags_of(alone) & flags_of(attack))).any()
    return [model, *(f"{100 * flags_of(record).mean():.1f}" for record in (plain, attack, *text, *joint))]


@click.command()
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--examples", type=click.IntRange(1), default=100, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A markdown file for the table.")
def main(models: tuple[str, ...], examples: int, out: Path | None) -> None:
    """Measure attacks on the texts of bundled and of bound encoders."""
    rows = []
    with TemporaryDirectory() as store:
        for model in models:
            rows.append(measure(model, examples, store))
            click.echo(" ".join(map(str, rows[-1])), err=True)
    text = tabulate(rows, headers=HEAD, tablefmt="github", disable_numparse=True)
    about = " ".join((__doc__ or "").split("\n\n")[1].split())
    click.echo(text)
    if out:
        out.write_text(f"# Edits of class names\n\n{about} n = {examples}.\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
