"""What a run tells while it goes on: a live line for people, one JSON object a line for scripts, or nothing."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Literal, TextIO

Mode = Literal["live", "quiet", "json"]
_SMOOTH = 0.1


@dataclass
class Console:
    """Where words go. Figures of a run go to one line that is written over, where the output is a terminal."""

    mode: Mode = "live"
    out: TextIO = field(default_factory=lambda: sys.stdout)
    _open: bool = False
    _last: float = 0.0

    def log(self, text: str, **facts: object) -> None:
        """One plain line; in JSON mode an object with `message` and the facts."""
        if self.mode == "json":
            self._write(json.dumps({"message": text, **facts}) + "\n")
        elif self.mode == "live":
            self._close()
            self._write(text + "\n")

    def progress(self, text: str, facts: dict[str, float | int | str]) -> None:
        """The state of a run. On a terminal it replaces the last one; elsewhere it comes every ten seconds."""
        if self.mode == "json":
            self._write(json.dumps(facts) + "\n")
        elif self.mode == "live" and self.out.isatty():
            # A line that wraps could not be written over.
            self._write("\r\x1b[2K" + text[: shutil.get_terminal_size().columns - 1])
            self._open = True
        elif self.mode == "live" and time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            self._write(text + "\n")

    def _close(self) -> None:
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


@dataclass
class EtaEstimator:
    """Seconds a step, smoothed, and how long the rest will take."""

    total: int
    seconds: float = 0.0

    def update(self, seconds: float) -> None:
        self.seconds = seconds if self.seconds == 0 else (1 - _SMOOTH) * self.seconds + _SMOOTH * seconds

    def remaining(self, done: int) -> float:
        """Seconds until the last step is done."""
        return self.seconds * (self.total - done)


def format_duration(seconds: float) -> str:
    """Minutes and seconds, as 3:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def memory_mb() -> tuple[float, float]:
    """(now, peak) resident memory of this process in MB; zeros where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            rows = dict(line.split(":", 1) for line in file)
        return float(rows["VmRSS"].split()[0]) / 1024, float(rows["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return 0.0, 0.0


def approximate_duration(seconds: float) -> str:
    """A duration to about a tenth, as people say it: 20 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds >= 10 else round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def one_line(error: BaseException) -> str:
    """An error in one line; of one from the system the file and the reason, without its number."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        text = f"{error.filename}: {reason}" if error.filename is not None else reason
    return " ".join(text.split())
