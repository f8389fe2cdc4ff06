"""A job that logs a warning, in a module that workers import fast."""

from rlbench.core.files import LOG


def complain(shared: object, job: int, on_pass: object) -> int:
    LOG.warning("the disk is full")
    return job
