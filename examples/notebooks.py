"""Writes the notebook of each script in this folder: python examples/notebooks.py.

The scripts are the source. `# %%` begins a cell of code and `# %% [markdown]` one of text, as in Jupytext and VS Code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def list_scripts() -> list[Path]:
    """The scripts that are notebooks, too."""
    return sorted(path for path in HERE.glob("*.py") if path.read_text(encoding="utf-8").startswith("# %%"))


def to_notebook(script: str) -> str:
    """The notebook of a script, without outputs."""
    _, *parts = MARK.split(script)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    cells = [_cell(kind or "code", text.strip("\n"), k) for k, (kind, text) in enumerate(pairs)]
    facts = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": facts, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, text: str, number: int) -> dict[str, Any]:
    if kind == "markdown":
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    more = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        **more,
        "source": text.splitlines(keepends=True),
    }


if __name__ == "__main__":
    for path in list_scripts():
        path.with_suffix(".ipynb").write_text(to_notebook(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {path.with_suffix('.ipynb')}")
