"""Cells: groups that are computed together, modes of a suite, content hashes, bounds of passes."""

from rlbench.engine.cells.keys import (
    Group,
    bound,
    canonical,
    cell_key,
    groups,
    in_mode,
    mode,
    plugin,
    plugin_values,
    protocol,
    record_key,
    taken_over,
    told,
    worst_members,
)

__all__ = [
    "Group",
    "bound",
    "canonical",
    "cell_key",
    "groups",
    "in_mode",
    "mode",
    "plugin",
    "plugin_values",
    "protocol",
    "record_key",
    "taken_over",
    "told",
    "worst_members",
]
