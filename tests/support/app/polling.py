"""Jobs in tests: what stands for a run, and waiting for it, however busy the machine is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.jobs.job import Job
from app.jobs.queue import Jobs

STUB = (sys.executable, "-S", str(Path(__file__).with_name("stub_run.py")))
"""The command of a run that computes nothing."""
PATIENCE = 900.0
"""Seconds."""


def swept(jobs: Jobs) -> None:
    """Ends everything that a test left going."""
    for job in jobs.list():
        if not job.over and not job.outside:
            jobs.cancel(job.id, at_once=True)
    jobs.close()


def until(true: Callable[[], object]) -> None:
    """Waits until something is true."""
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def over(jobs: Jobs, id: str) -> Job:
    """Waits until a job is over, and returns it."""
    until(lambda: jobs.get(id).over)
    return jobs.get(id)


def stepping(jobs: Jobs, id: str) -> None:
    """Waits until a job has taken some steps."""
    until(lambda: jobs.progress(id).step >= 2 or jobs.get(id).over)
    assert not jobs.get(id).over, f"it is {jobs.get(id).state} already: {jobs.get(id).reason}"


def starts(jobs: Jobs, id: str) -> list[str]:
    """The commands that ran in a folder."""
    file = jobs.store.folder(id) / "starts.txt"
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []
