"""Cells: groups that are computed together, modes of a suite, content hashes, bounds of passes."""

from rlbench.engine.cells.bounds import bound, told
from rlbench.engine.cells.groups import Group, canonical, groups, taken_over, worst_members
from rlbench.engine.cells.keys import cell_key, plugin, plugin_values, protocol
from rlbench.engine.cells.modes import in_mode, mode

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
    "taken_over",
    "told",
    "worst_members",
]
