"""A process that outlives the server, and that the next server knows again.

Its output goes to a log, and the log is locked for as long as the process lives: the lock belongs to the open file,
which the process inherits, and the system lets go of it when the process ends, however it ends. So whether a job lives
is never guessed from a number that another process may have by now. The number is only needed to end it; it is written
down before the command begins, and trusted only for a process that writes into this log.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NICENESS = 5
"""How far a job steps back behind the page on a busy machine (see nice(1))."""
_LAUNCH_SCRIPT = 'echo $$ > "$1" && shift && exec nice -n "$0" "$@"'
"""The shell leaves its own number, which the command takes over."""


@dataclass(frozen=True)
class Process:
    """The process of one job: `log` holds what it says, `number` which process it is."""

    log: Path
    pid_file: Path

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts the command in a session of its own, with an empty log.

        Raises:
            BlockingIOError: it runs already.
            OSError: the system can not start it.
        """
        self.pid_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log.truncate(0)
            return subprocess.Popen(
                ["/bin/sh", "-c", _LAUNCH_SCRIPT, str(NICENESS), str(self.pid_file), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether it, or a process that it started, goes on."""
        try:
            with self.log.open("rb") as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def started(self) -> bool:
        """Whether the command was ever begun since its number was last taken away."""
        return self.pid_file.exists()

    def pid(self) -> int | None:
        """Its number; None where it is over, or not begun, or another process has that number now."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if self.alive() and _writes_to(pid, self.log) else None

    def terminate(self, kill: bool = False) -> bool:
        """Asks it to end, or ends it and all that it started at once; returns whether there was one to ask."""
        pid = self.pid()
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            if kill:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGTERM)
            return True
        return False


def environment(max_parallel: int) -> dict[str, str]:
    """The surroundings of a job when so many run at once: they share the processors, and none spins while it idles."""
    variables = {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
    if max_parallel > 1:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        variables["OMP_NUM_THREADS"] = str(max(1, processors // max_parallel))
    return variables | dict(os.environ)


def _writes_to(pid: int, log: Path) -> bool:
    """Whether the process of that number leads a session and writes into the log."""
    try:
        if os.getsid(pid) != pid:
            return False
        stdout = Path(f"/proc/{pid}/fd/1")
        return not Path("/proc/self/fd").exists() or stdout.samefile(log)
    except OSError:
        return False
