"""How runs ended, and how those of the command line stand: read from the disk alone, so that every server that looks
finds the same.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from app.jobs.job import BROKEN, Job, State
from app.jobs.progress import complete, report_age, trouble
from app.jobs.store import Store
from configs.serialization import glance

STILL = 120.0
"""Seconds without a new line after which a run of the command line counts as over."""
_INTERRUPTED = "its process ended before it was done: the machine went down, its memory ran out, or someone ended it"


def ended(job: Job, folder: Path, log: Path) -> Job:
    """The job whose process is over, with how it ended."""
    job = replace(job, ended=time.time())
    if job.command == "compare":
        if complete(job, folder):
            return replace(job, state="done")
    elif report_age(job, folder) not in (0, job.before):
        return replace(job, state="done" if complete(job, folder) else "stopped")
    if reason := trouble(log):
        return replace(job, state="failed", reason=reason)
    return replace(job, state="stopped") if job.stopping else replace(job, state="interrupted", reason=_INTERRUPTED)


def later(job: Job, folder: Path) -> Job:
    """The job as it stands: the command line may have finished since what the page began."""
    if job.state in BROKEN and job.ended is not None and report_age(job, folder) > (job.ended + 1) * 1e9:
        return replace(job, state="done" if complete(job, folder) else "stopped", reason="")
    return job


def busy(folder: Path, since: float) -> bool:
    """Whether someone has written into the run after that time, and lately."""
    newest = _written(folder)
    return newest > since + 2 and time.time() - newest < STILL and not _reported(folder, newest)


class Outside:
    """Runs of the command line in the folder of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[tuple[float, int], Job]] = {}
        self._mutex = threading.Lock()

    def jobs(self, known: set[str]) -> list[Job]:
        """All of them; `known` are the ids of the page's own jobs."""
        return [self._one(id, command) for id, command in self._store.others(known)]

    def job(self, id: str) -> Job:
        """One of them. Raises Unknown."""
        command = "compare" if (self._store.folder(id) / "comparison.json").is_file() else "generate"
        return self._one(id, command)

    def _one(self, id: str, command: str) -> Job:
        folder = self._store.runs / id
        asked = folder / ("comparison.json" if command == "compare" else "run.yaml")
        bare = Job(id, command, outside=True, state="interrupted")
        age = (_time(asked), report_age(bare, folder))
        with self._mutex:
            before = self._known.get(id)
        if before is not None and before[0] == age:
            job = before[1]
        else:
            job = _described(bare, folder, asked)
            with self._mutex:
                self._known[id] = age, job
        return replace(job, state="running", reason="") if job.state != "done" and busy(folder, 0.0) else job


def _described(bare: Job, folder: Path, asked: Path) -> Job:
    """A run of the command line by what is in its folder."""
    made, report = _time(asked), report_age(bare, folder)
    # A comparison is asked for in JSON, which is YAML too, but of one block.
    prompt = _prompt(asked)
    job = replace(bare, prompt=prompt, made=made, asked=made, began=made)
    if not report:
        return replace(job, reason=_INTERRUPTED)
    state: State = "done" if complete(job, folder) else "stopped"
    return replace(job, state=state, ended=report / 1e9)


def _prompt(asked: Path) -> str:
    from app.jobs.progress import document

    row = document(asked) if asked.suffix == ".json" else glance(asked, ("prompt",))
    return str(row.get("prompt", ""))


def _written(folder: Path) -> float:
    """When a run last wrote a line, began, or wrote down a result of a comparison."""
    return max(map(_time, (folder / "metrics.jsonl", folder / "run.yaml", folder / "results.json")))


def _reported(folder: Path, since: float) -> bool:
    """Whether its report came after that time."""
    return _time(folder / "report.json") >= since


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
