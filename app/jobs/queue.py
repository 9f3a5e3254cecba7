"""The queue: jobs that wait, run in processes of their own, and are found again after the server went.

What stands on the disk is the truth. A job outlives the server that started it; the next server on the same folder
takes it over.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.forms.argument_policy import replace_flags, validate_args
from app.jobs.job import (
    ACTIVE_STATES,
    COMMANDS,
    LEADING_ARGS,
    PROMPT_ARGS,
    Job,
    LimitReached,
    NotFound,
    Progress,
    State,
)
from app.jobs.job_status import ExternalRuns, is_busy, mark_ended, refresh
from app.jobs.process import environment
from app.jobs.progress import has_checkpoint, progress_of, report_mtime_ns
from app.jobs.store import Store

__all__ = ["Job", "Jobs", "LimitReached", "NotFound", "Progress", "State"]

_log = logging.getLogger(__name__)
SDS3D = (sys.executable, "-m", "sds3d")
"""The command line."""
POLL_INTERVAL_S = 0.5
"""Seconds between two looks at the jobs that run."""
_STOP_POLL_INTERVAL_S = 0.05
"""The same while one of them has yet to hear that it should end."""
_CLOSE_TIMEOUT_S = 5.0
"""Seconds that a server which goes waits until they have heard."""
MIN_FREE_BYTES = 1e9
"""Bytes that have to be free on the disk for a new job."""
_List = list[Job]
"""A name for it inside a class that has a method `list`."""


class Jobs:
    """All runs of a folder. Every method may be called from any thread."""

    def __init__(
        self,
        runs: Path,
        max_parallel: int = 1,
        max_queued: int = 20,
        max_per_owner: int = 3,
        command: Sequence[str] = SDS3D,
        trusted: Collection[str] = (),
    ) -> None:
        """Takes the folder `runs`, finds the jobs that go on there, and starts those that wait.

        Args:
            max_parallel: jobs that run at the same time.
            max_queued: jobs that wait, at most.
            max_per_owner: jobs of one owner that wait or run, at most.
            command: what stands before `generate` and so on.
            trusted: values that flags of visitors may have though they name files, such as the folder of a prior.

        Raises:
            ValueError: another server has the folder.
            OSError: it can not be written.
        """
        self.store = Store(runs)
        self.max_parallel, self.max_queued, self.max_per_owner = max_parallel, max_queued, max_per_owner
        self.trusted = frozenset(trusted)
        self._command = tuple(command)
        self._mutex = threading.RLock()
        self._jobs = {job.id: job for job in self.store.jobs()}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pending_stops: dict[str, bool] = {}
        """Jobs whose process has yet to hear that it should end, and whether at once: it may have only just begun."""
        self._external = ExternalRuns(self.store)
        self._wake, self._closing = threading.Event(), False
        self._poll()
        self._thread = threading.Thread(target=self._supervise, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, command: str, args: Sequence[str], owner: str, name: str = "", batch: str = "") -> Job:
        """Puts a job into the queue.

        Args:
            command: `generate`, `edit`, `refine`, `texture` or `compare`.
            args: its words; the first is the prompt, or the id of a run (`edit`, `refine`) or the name of an uploaded
                file (`texture`), with the prompt after it (not for `refine`). No `--out`.
            owner: whose share of the queue it takes.
            name: what the run is called; by default it is named after the prompt.
            batch: a name that it has in common with others.

        Raises:
            Full: the queue, the owner's share or the disk is full.
            ValueError: a word that is not taken here, or a run or upload that does not exist.
        """
        if command not in COMMANDS:
            raise ValueError(f"there is no command {command!r}; expected {', '.join(COMMANDS)}")
        num_leading, num_texts = LEADING_ARGS[command], LEADING_ARGS[command] + PROMPT_ARGS[command]
        args = validate_args(args, num_texts, self.trusted)
        if num_leading:
            self._source(command, args[0])
        prompt = args[num_leading] if PROMPT_ARGS[command] else self.get(args[0]).prompt
        now = time.time()
        with self._mutex:
            self._check_capacity(owner)
            id = self.store.reserve(name or prompt)
            job = Job(id, command, args, owner, created_at=now, prompt=prompt, batch=batch, queued_at=now)
            self._save(job)
        self._wake.set()
        return job

    def cancel(self, id: str, kill: bool = False) -> None:
        """Takes a job from the queue, or asks it to stop: it then exports what it has. Nothing for one that is over.

        `kill` ends it without an export; it can be taken up again at its last checkpoint.
        Raises Unknown, and ValueError for a run that a command line makes at this moment.
        """
        with self._mutex:
            job = self.get(id)
            if job.is_over or (job.stopping and not kill):
                return
            if job.external:
                raise ValueError(f"{id} is made by a command line; stop it there")
            if job.state == "waiting":
                self._save(replace(job, state="stopped", stopping=True, ended_at=time.time()))
                return
            self._jobs[id] = replace(job, stopping=True)
            self._pending_stops[id] = kill
            self._deliver_stops()
        self._wake.set()

    def get(self, id: str) -> Job:
        """A job as it stands. Raises Unknown."""
        with self._mutex:  # a folder that is being emptied is away for a moment
            folder, job = self.store.folder(id), self._jobs.get(id)
        return self._external.job(id) if job is None else refresh(job, folder)

    def list(self) -> _List:
        """All runs, the newest first."""
        with self._mutex:
            own_jobs = dict(self._jobs)
        found = [refresh(job, self.store.runs / id) for id, job in own_jobs.items() if (self.store.runs / id).is_dir()]
        return sorted([*found, *self._external.jobs(set(own_jobs))], key=lambda job: (-job.created_at, job.id))

    def search(self, text: str) -> _List:
        """Runs whose prompt, name or command has every word of `text` in it, the newest first."""
        terms = text.casefold().split()
        return [
            job for job in self.list() if all(w in f"{job.prompt} {job.id} {job.command}".casefold() for w in terms)
        ]

    def progress(self, id: str) -> Progress:
        """How far a run is. Raises Unknown."""
        job, folder = self.get(id), self.store.runs / id
        position = next((position for position, other in enumerate(self._queue(), 1) if other.id == id), 0)
        return progress_of(job, folder, self.store.process(id).log, position)

    def resume(self, id: str, owner: str, steps: int | None = None) -> Job:
        """Puts a run into the queue again: from its checkpoint, or from its start where it has none.

        `steps` is a new last step, beyond which a finished run goes on too.

        Raises:
            Full: as `submit`.
            ValueError: it is not over, or there is nothing left to do, or nothing to go on from.
        """
        with self._mutex:
            job, folder = self.get(id), self.store.folder(id)
            if not job.is_over:
                raise ValueError(f"{id} is {job.state} already")
            if is_busy(folder, job.ended_at or 0.0):
                raise ValueError(f"{id} is made by a command line at this moment; wait until that is over")
            if job.state == "done" and (steps is None or job.command == "compare"):
                raise ValueError(f"{id} is done" + ("" if job.command == "compare" else "; give more steps to go on"))
            if not job.args and not (job.command != "compare" and has_checkpoint(folder)):
                raise ValueError(f"{id} has no checkpoint to go on from; make it again")
            self._check_capacity(owner)
            job = replace(
                job, owner=owner, state="waiting", reason="", queued_at=time.time(), started_at=None, ended_at=None
            )
            job = replace(job, stopping=False, last_step=steps, external=False)
            self._save(job)
        self._wake.set()
        return job

    def clone(self, id: str, owner: str, changes: Mapping[str, str] | None = None) -> Job:
        """A new run like an old one that the page made, with other values of flags (`{"seed": "3"}`) or `prompt`.

        Raises as `submit`, and ValueError for a run of the command line.
        """
        job = self.get(id)
        if not job.args:
            raise ValueError(f"{id} was made by the command line; what it was asked is in its run.yaml")
        num_texts = LEADING_ARGS[job.command] + PROMPT_ARGS[job.command]
        return self.submit(job.command, replace_flags(job.args, num_texts, changes or {}), owner)

    def delete(self, id: str) -> None:
        """Deletes a run with all its files. Raises Unknown, and ValueError while it waits or runs."""
        with self._mutex:
            job = self.get(id)
            if not job.is_over or is_busy(self.store.folder(id), job.ended_at or 0.0):
                raise ValueError(f"{id} is {job.state}; cancel it first")
            self.store.delete(id)
            self._jobs.pop(id, None)

    def file(self, id: str, name: str) -> Path:
        """A file of a run by its name inside the run's folder. Raises Unknown for anything else."""
        return self.store.file(id, name)

    def close(self) -> None:
        """The server goes; jobs that run go on, and the next server finds them. Those that were to end hear of it."""
        limit = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._pending_stops and time.monotonic() < limit:
            time.sleep(_STOP_POLL_INTERVAL_S)
        self._closing = True
        self._wake.set()
        self._thread.join()
        self.store.close()

    def _supervise(self) -> None:
        while not self._closing:
            self._wake.wait(_STOP_POLL_INTERVAL_S if self._pending_stops else POLL_INTERVAL_S)
            self._wake.clear()
            if not self._closing:
                try:
                    self._poll()
                except OSError as error:  # such as a full disk: what could not be written is tried again
                    _log.warning("%s", error)

    def _poll(self) -> None:
        """Notices which jobs have ended, and starts those whose turn it is."""
        with self._mutex:
            for id, child in [*self._children.items()]:
                if child.poll() is not None:
                    del self._children[id]
            for job in [job for job in self._jobs.values() if job.state == "running"]:
                process = self.store.process(job.id)
                if process.alive():
                    continue
                self._pending_stops.pop(job.id, None)
                self._save(
                    mark_ended(job, self.store.runs / job.id, process.log) if process.started() else _requeued(job)
                )
            for job in self._queue():
                if sum(other.state == "running" for other in self._jobs.values()) >= self.max_parallel:
                    break
                self._start(job)
            self._deliver_stops()

    def _deliver_stops(self) -> None:
        """Ends the processes that were to be ended, of those that can be reached. Only then it stands on the disk: the
        next server tells none twice, for that would cost its export.
        """
        for id, kill in [*self._pending_stops.items()]:
            process = self.store.process(id)
            if process.terminate(kill) or not process.alive():
                del self._pending_stops[id]
                self._save(self._jobs[id])

    def _queue(self) -> _List:
        """The jobs that wait, the next one first."""
        with self._mutex:
            return sorted(
                (j for j in self._jobs.values() if j.state == "waiting"), key=lambda job: (job.queued_at, job.id)
            )

    def _start(self, job: Job) -> None:
        """Starts a job. It stands on the disk as running before its process exists: a server that dies in between
        leaves one that never began, which the next server puts back.
        """
        folder, process = self.store.runs / job.id, self.store.process(job.id)
        process.pid_file.unlink(missing_ok=True)
        self._save(
            replace(job, state="running", started_at=time.time(), report_mtime_before=report_mtime_ns(job, folder))
        )
        try:
            if not has_checkpoint(folder) and (folder / "run.yaml").exists() and job.command != "compare":
                self.store.clear(job.id)
            self._children[job.id] = process.start(self._command_line(job, folder), environment(self.max_parallel))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            self._save(replace(job, state="failed", reason=f"it could not be started: {reason}", ended_at=time.time()))

    def _command_line(self, job: Job, folder: Path) -> Sequence[str]:
        """The command line of a job. Raises Unknown where what it starts from is gone."""
        if job.command != "compare" and has_checkpoint(folder):
            extra = [] if job.last_step is None else ["--steps", str(job.last_step)]
            return [*self._command, "resume", str(folder), *extra]
        args = [*job.args]
        if LEADING_ARGS[job.command]:
            args[0] = str(self._source(job.command, args[0]))
        json_flag = ["--json"] if job.command == "compare" else []
        return [*self._command, job.command, *args, "--out", str(folder), *json_flag]

    def _source(self, command: str, name: str) -> Path:
        """What a job starts from. Raises Unknown."""
        return self.store.upload(name) if command == "texture" else self.store.folder(name)

    def _check_capacity(self, owner: str) -> None:
        """Raises Full where one more job is one too many."""
        active = [job for job in self._jobs.values() if job.state in ACTIVE_STATES]
        owned = sum(job.owner == owner for job in active)
        if owned >= self.max_per_owner:
            raise LimitReached(
                f"you have {owned} runs going or waiting, and {self.max_per_owner} is the most; "
                "wait for one or cancel it"
            )
        if sum(job.state == "waiting" for job in active) >= self.max_queued:
            raise LimitReached(f"{self.max_queued} runs are waiting already; try again when the queue is shorter")
        if (free := shutil.disk_usage(self.store.runs).free) < MIN_FREE_BYTES:
            raise LimitReached(f"the disk has {free / 1e9:.1f} GB left; delete some runs first")

    def _save(self, job: Job) -> None:
        """The disk first, then the memory."""
        self.store.write(job)
        self._jobs[job.id] = job


def _requeued(job: Job) -> Job:
    """A job that was to be started, and never was."""
    return replace(job, state="waiting", started_at=None)
