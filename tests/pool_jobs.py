"""Jobs for tests of executors, in a module that workers import fast."""

import os
import signal
import time
from pathlib import Path

from rlbench.core.errors import RLBenchError
from rlbench.core.executor import Report
from rlbench.core.files import LOG


def complain(shared: object, device: str, job: int, ahead: int | None, report: Report) -> int:
    LOG.warning("the disk is full")
    return job


def place(
    shared: tuple[str, int], device: str, job: int, ahead: int | None, report: Report
) -> tuple[int, str, int | None]:
    """Waits in a folder for a number of workers; returns where it ran, and which job was to follow."""
    folder, count = shared
    (Path(folder) / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    report.count(1)
    return os.getpid(), device, ahead


def die(shared: str, device: str, job: int, ahead: int | None, report: Report) -> int:
    """Kills its process for the first `job` tries, which files in the folder `shared` count."""
    tries = len(list(Path(shared).glob(f"{job}-*")))
    if tries < job:
        (Path(shared) / f"{job}-{tries}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def refuse(shared: object, device: str, job: int, ahead: int | None, report: Report) -> int:
    raise RLBenchError("it has other data")


def crash(shared: object, device: str, job: int, ahead: int | None, report: Report) -> int:
    raise ZeroDivisionError("planned")


def repeat(shared: int, device: str, job: int, ahead: int | None, report: Report) -> int:
    """Reports `shared` passes one by one, each with its number as news of the job."""
    for number in range(shared):
        report.tell({job: number})
        report.count(1)
    return job
