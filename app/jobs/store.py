"""The runs on the disk: which there are, where their files lie, and which files a visitor may have.

A visitor names a run by its id, which is the name of its folder, and a file by a name inside that folder; `folder` and
`file` are the only ways from there to a path. What the store itself keeps lies in `.jobs`, which no id reaches:
ID.json (the job), ID.log (what its process said), ID.pid, and folders on their way to deletion.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from app.jobs.job import Job, NotFound
from app.jobs.process import Process
from sds3d.atomic_files import write_bytes

JOBS_DIR = ".jobs"
UPLOADS_DIR = ".uploads"
_COMMAND_BY_FILE = {"run.yaml": "generate", "comparison.json": "compare"}
"""Files that tell a folder of ours from others, and the command that writes them."""


class Store:
    """The folder of runs. One server has it at a time."""

    def __init__(self, runs: Path) -> None:
        """Takes the folder, which is made where it is missing.

        Raises:
            ValueError: another server has it.
            OSError: it can not be written.
        """
        self.runs = runs.expanduser().resolve()
        self.jobs_dir = self.runs / JOBS_DIR
        self.uploads = self.runs / UPLOADS_DIR
        for folder in (self.jobs_dir, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._acquire_lock()
        for gone in self.jobs_dir.glob("gone-*"):
            shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Lets another server have the folder."""
        self._lock.close()

    def folder(self, id: str) -> Path:
        """The folder of a run. Raises Unknown for everything that is no id of a run."""
        path = self.runs / id if _is_safe_name(id) else None
        if (
            path is None
            or path.is_symlink()
            or not path.is_dir()
            or not (self._job_file(id).is_file() or _command_of(path))
        ):
            raise NotFound(f"there is no run called {id[:80]!r}")
        return path

    def file(self, id: str, name: str) -> Path:
        """A file of a run, such as `asset.glb` or `previews/step-000050.png`.

        Raises Unknown for what is not there, is hidden, is no plain file, or is reached by a link or a way out.
        """
        folder, parts = self.folder(id), name.split("/")
        if not all(map(_is_safe_name, parts)):
            raise NotFound(f"run {id!r} has no file called {name[:80]!r}")
        path = folder.joinpath(*parts)
        try:
            plain = path.is_file() and path.resolve() == path
        except OSError:
            plain = False
        if not plain:
            raise NotFound(f"run {id!r} has no file called {name[:80]!r}")
        return path

    def upload(self, name: str) -> Path:
        """A file that was uploaded and found sound. Raises Unknown."""
        path = self.uploads / name if _is_safe_name(name) else None
        if path is None or path.is_symlink() or not path.is_file():
            raise NotFound(f"there is no uploaded file {name[:80]!r}; upload it again")
        return path

    def process(self, id: str) -> Process:
        """The process of a job, whether it runs or not."""
        return Process(self.jobs_dir / f"{id}.log", self.jobs_dir / f"{id}.pid")

    def reserve(self, name: str) -> str:
        """A new id, from a prompt or a name that someone chose, with a folder that is empty."""
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
        number = 1
        while True:
            id = stem if number == 1 else f"{stem}-{number}"
            with suppress(FileExistsError):
                (self.runs / id).mkdir()
                return id
            number += 1

    def write(self, job: Job) -> None:
        """Puts a job on the disk, whole or not at all."""
        write_bytes(self._job_file(job.id), job.to_json())

    def jobs(self) -> list[Job]:
        """Every job that the page made. What was damaged or lost its folder is left out; the run itself stays."""
        found = []
        for path in self.jobs_dir.glob("*.json"):
            with suppress(OSError, ValueError):
                job = Job.from_json(path.read_bytes())
                if job.id == path.stem and (self.runs / job.id).is_dir():
                    found.append(job)
        return found

    def external_runs(self, known: set[str]) -> list[tuple[str, str]]:
        """(id, command) of the runs that are not among `known`."""
        found = []
        with os.scandir(self.runs) as entries:
            for entry in entries:
                if entry.name not in known and _is_safe_name(entry.name) and entry.is_dir(follow_symlinks=False):
                    command = _command_of(Path(entry.path))
                    if command:
                        found.append((entry.name, command))
        return found

    def clear(self, id: str) -> None:
        """Takes everything out of a run's folder, to begin it anew."""
        folder = self.folder(id)
        self._remove(folder)
        folder.mkdir()

    def delete(self, id: str) -> None:
        """Deletes a run: it is gone at once, however long the disk takes. Raises Unknown."""
        folder = self.folder(id)
        for path in (self._job_file(id), self.process(id).log, self.process(id).pid_file):
            path.unlink(missing_ok=True)
        self._remove(folder)

    def _remove(self, folder: Path) -> None:
        gone = self.jobs_dir / f"gone-{secrets.token_hex(8)}"
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _job_file(self, id: str) -> Path:
        return self.jobs_dir / f"{id}.json"

    def _acquire_lock(self) -> IO[str]:
        """The lock that says that a server has this folder; the system lets go of it when the server ends."""
        path = self.jobs_dir / "server.lock"
        file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip()
            file.close()
            holder = f" (process {other})" if other else ""
            raise ValueError(f"another server has {self.runs}{holder}; end it, or give another folder") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file


def _is_safe_name(name: str) -> bool:
    """Whether it names something in a folder: not hidden, no way up or down, nothing that no file is called."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= 200
        and not name.startswith(".")
        and name.isprintable()
        and not set(name) & set("/\\\0")
    )


def _command_of(folder: Path) -> str:
    """The command that made a folder; empty where it is none of ours."""
    return next((command for file, command in _COMMAND_BY_FILE.items() if (folder / file).is_file()), "")
