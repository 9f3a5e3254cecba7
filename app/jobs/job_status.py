"""How runs ended, and how those of the command line stand: read from the disk alone, so that every server that looks
finds the same.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

from app.jobs.job import RESUMABLE_STATES, Job, State
from app.jobs.progress import error_line, is_complete, report_mtime_ns
from app.jobs.store import Store
from configs.serialization import read_fields

IDLE_TIMEOUT_S = 120.0
"""Seconds without a new line after which a run of the command line counts as over."""
_INTERRUPTED = "its process ended before it was done: the machine went down, its memory ran out, or someone ended it"


def mark_ended(job: Job, folder: Path, log: Path) -> Job:
    """The job whose process is over, with how it ended."""
    job = replace(job, ended_at=time.time())
    if job.command == "compare":
        if is_complete(job, folder):
            return replace(job, state="done")
    elif report_mtime_ns(job, folder) not in (0, job.report_mtime_before):
        return replace(job, state="done" if is_complete(job, folder) else "stopped")
    if reason := error_line(log):
        return replace(job, state="failed", reason=reason)
    return replace(job, state="stopped") if job.stopping else replace(job, state="interrupted", reason=_INTERRUPTED)


def refresh(job: Job, folder: Path) -> Job:
    """The job as it stands: the command line may have finished since what the page began."""
    if (
        job.state in RESUMABLE_STATES
        and job.ended_at is not None
        and report_mtime_ns(job, folder) > (job.ended_at + 1) * 1e9
    ):
        return replace(job, state="done" if is_complete(job, folder) else "stopped", reason="")
    return job


def is_busy(folder: Path, since: float) -> bool:
    """Whether someone has written into the run after that time, and lately."""
    newest = _last_write(folder)
    return newest > since + 2 and time.time() - newest < IDLE_TIMEOUT_S and not _has_report_since(folder, newest)


class ExternalRuns:
    """Runs of the command line in the folder of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[tuple[float, int], Job]] = {}
        self._mutex = threading.Lock()

    def jobs(self, known: set[str]) -> list[Job]:
        """All of them; `known` are the ids of the page's own jobs."""
        return [self._load_job(id, command) for id, command in self._store.external_runs(known)]

    def job(self, id: str) -> Job:
        """One of them. Raises Unknown."""
        command = "compare" if (self._store.folder(id) / "comparison.json").is_file() else "generate"
        return self._load_job(id, command)

    def _load_job(self, id: str, command: str) -> Job:
        folder = self._store.runs / id
        config_file = folder / ("comparison.json" if command == "compare" else "run.yaml")
        job_stub = Job(id, command, external=True, state="interrupted")
        mtimes = (_mtime(config_file), report_mtime_ns(job_stub, folder))
        with self._mutex:
            cached = self._known.get(id)
        if cached is not None and cached[0] == mtimes:
            job = cached[1]
        else:
            job = _job_from_folder(job_stub, folder, config_file)
            with self._mutex:
                self._known[id] = mtimes, job
        return replace(job, state="running", reason="") if job.state != "done" and is_busy(folder, 0.0) else job


def _job_from_folder(job_stub: Job, folder: Path, config_file: Path) -> Job:
    """A run of the command line by what is in its folder."""
    created_at, report = _mtime(config_file), report_mtime_ns(job_stub, folder)
    # A comparison is asked for in JSON, which is YAML too, but of one block.
    prompt = _prompt(config_file)
    job = replace(job_stub, prompt=prompt, created_at=created_at, queued_at=created_at, started_at=created_at)
    if not report:
        return replace(job, reason=_INTERRUPTED)
    state: State = "done" if is_complete(job, folder) else "stopped"
    return replace(job, state=state, ended_at=report / 1e9)


def _prompt(config_file: Path) -> str:
    from app.jobs.progress import read_json

    row = read_json(config_file) if config_file.suffix == ".json" else read_fields(config_file, ("prompt",))
    return str(row.get("prompt", ""))


def _last_write(folder: Path) -> float:
    """When a run last wrote a line, began, or wrote down a result of a comparison."""
    return max(map(_mtime, (folder / "metrics.jsonl", folder / "run.yaml", folder / "results.json")))


def _has_report_since(folder: Path, since: float) -> bool:
    """Whether its report came after that time."""
    return _mtime(folder / "report.json") >= since


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
