"""Jobs in tests: what stands for a run, and waiting for it, however busy the machine is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.jobs.job import Job
from app.jobs.queue import Jobs

STUB_COMMAND = (sys.executable, "-S", str(Path(__file__).with_name("stub_run.py")))
"""The command of a run that computes nothing."""
TIMEOUT_S = 900.0
"""Seconds."""


def cancel_all(jobs: Jobs) -> None:
    """Ends everything that a test left going."""
    for job in jobs.list():
        if not job.is_over and not job.external:
            jobs.cancel(job.id, kill=True)
    jobs.close()


def wait_until(condition: Callable[[], object]) -> None:
    """Waits until something is true."""
    limit = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def wait_until_over(jobs: Jobs, id: str) -> Job:
    """Waits until a job is over, and returns it."""
    wait_until(lambda: jobs.get(id).is_over)
    return jobs.get(id)


def wait_for_steps(jobs: Jobs, id: str) -> None:
    """Waits until a job has taken some steps."""
    wait_until(lambda: jobs.progress(id).step >= 2 or jobs.get(id).is_over)
    assert not jobs.get(id).is_over, f"it is {jobs.get(id).state} already: {jobs.get(id).reason}"


def started_commands(jobs: Jobs, id: str) -> list[str]:
    """The commands that ran in a folder."""
    file = jobs.store.folder(id) / "starts.txt"
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []
