"""The README.md of a repository on the hub: the section with a model's results, which later pushes replace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

BEGIN, END = "<!-- rlbench results: begin -->", "<!-- rlbench results: end -->"
PICTURE = "rlbench-robustness.png"
_SECTION = re.compile(f"{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL)


def insert_section(readme: str, section: str) -> str:
    """The README with a section between two comments: in place of an earlier one, or at the end.

    A comment that has lost the other one is text like any other.

    Args:
        readme: the whole file, with its header in YAML; "" for a new one.
        section: markdown.
    """
    block = f"{BEGIN}\n{section.strip()}\n{END}"
    if found := _SECTION.search(readme):
        return f"{readme[: found.start()]}{block}{readme[found.end() :]}"
    return f"{readme.rstrip()}\n\n{block}\n".lstrip()


def make_card(title: str, header: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """A new README.

    Args:
        title: the first heading.
        header: the metadata, as the hub knows them; values that are empty are left out.
        sections: the text under each further heading; the one of "" comes first, without a heading.
    """
    known = {key: value for key, value in header.items() if value}
    front = f"---\n{yaml.safe_dump(known, sort_keys=False)}---\n"
    parts = [f"## {name}\n\n{text.strip()}" if name else text.strip() for name, text in sections.items()]
    return "\n\n".join([f"{front}\n# {title}", *parts]) + "\n"
