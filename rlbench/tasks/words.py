"""The words of class names, as a small dictionary of things that pictures and sounds show."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

NAMES = Path(__file__).parent / "names"


@cache
def list_class_words() -> frozenset[str]:
    """The words of three or more letters in the class names of the lists that rlbench ships, in lower case.

    They are those of ImageNet, Kinetics-400, UCF101, Caltech101, CIFAR-100 and ESC-50: about 2000 words.
    """
    found = set[str]()
    for path in sorted(NAMES.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if "label" in row:
                    found.update(re.findall(r"[a-z]{3,}", row["name"].lower()))
    return frozenset(found)
