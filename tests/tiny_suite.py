"""A small suite on the linear oracle, and functions that make its records comparable."""

from pathlib import Path

from rlbench.core import Record
from rlbench.store.records import drop_times

SUITE = """
suite: tiny
version: 1
summary: A ladder, a lone attack and a worst case on the linear oracle.
modality: image
task: {name: blobs}
examples: %d
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255], steps: 5}
  - {attack: %s, norm: linf, eps: 4/255}
  - worst
"""


def suite_file(folder: Path, examples: int = 40, attack: str = "fgsm") -> str:
    path = folder / f"{attack}-{examples}.yaml"
    path.write_text(SUITE % (examples, attack))
    return str(path)


def counts(records: list[Record]) -> dict[str, int | None]:
    return {str(record.perturbation): record.n_correct for record in records}


def same(records: list[Record]) -> list[Record]:
    return sorted((drop_times(record) for record in records), key=lambda record: str(record.perturbation))
