"""Cells: groups that are computed together, modes of a suite, content hashes, bounds of passes."""

from rlbench.engine.cells.bounds import bound_passes, describe_attack
from rlbench.engine.cells.groups import Group, canonical, group_of, groups, is_aggregate, members_of, worst_members
from rlbench.engine.cells.keys import cell_key, plugin_values, protocol
from rlbench.engine.cells.knowledge import Restricted, restrict, restrict_corruptions, restrict_texts
from rlbench.engine.cells.modes import in_mode, mode

__all__ = [
    "Group",
    "Restricted",
    "bound_passes",
    "canonical",
    "cell_key",
    "describe_attack",
    "group_of",
    "groups",
    "in_mode",
    "is_aggregate",
    "members_of",
    "mode",
    "plugin_values",
    "protocol",
    "restrict",
    "restrict_corruptions",
    "restrict_texts",
    "worst_members",
]
