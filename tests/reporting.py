"""A job that reports passes and news, for tests of workers."""

from rlbench.engine.run.workers import Report


def repeat(shared: int, job: int, report: Report) -> int:
    """Reports `shared` passes one by one, each with its number as news of the job."""
    for number in range(shared):
        report.tell({job: number})
        report.count(1)
    return job
