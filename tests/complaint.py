"""A job for workers that has something to say; a module that is imported fast."""

from rlbench.core.files import LOG


def complain(shared: object, job: int, on_pass: object) -> int:
    LOG.warning("the disk is full")
    return job
