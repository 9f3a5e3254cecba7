"""What a run tells: a line that is written over for people, objects for scripts, nothing when asked for quiet."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import pytest

from sds3d import console as console_module
from sds3d.console import Console, EtaEstimator, Mode, approximate_duration, format_duration, memory_mb


class Terminal(io.StringIO):
    """Says it is one."""

    def isatty(self) -> bool:
        return True


def told(mode: Mode, out: io.StringIO) -> str:
    """What is written of a short run."""
    with redirect_stdout(out):
        console = Console(mode)
    console.log("begin", steps=2)
    for step in (1, 2):
        console.progress(f"step {step}", {"step": step})
    console.log("end")
    return out.getvalue()


def test_scripts_read_one_object_a_line() -> None:
    assert [json.loads(line) for line in told("json", io.StringIO()).splitlines()] == [
        {"message": "begin", "steps": 2},
        {"step": 1},
        {"step": 2},
        {"message": "end"},
    ]


def test_quiet_is_quiet() -> None:
    assert told("quiet", Terminal()) == ""


def test_on_a_terminal_the_figures_are_written_over() -> None:
    # Two rewrites of one line, which `say` leaves standing.
    assert told("live", Terminal()) == "begin\n\r\x1b[2Kstep 1\r\x1b[2Kstep 2\nend\n"


def test_elsewhere_the_figures_come_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    out = io.StringIO()
    with redirect_stdout(out):
        console = Console("live")
    for step in range(25):
        console.progress(f"step {step}", {"step": step})
        now += 1
    assert out.getvalue().splitlines() == ["step 0", "step 11", "step 22"]


def test_the_pace_says_how_long_the_rest_takes() -> None:
    pace = EtaEstimator(10)
    for _ in range(4):
        pace.update(0.5)
    assert pace.remaining(4) == pytest.approx(3.0) and pace.remaining(10) == 0
    for _ in range(200):
        pace.update(2.0)
    assert pace.seconds == pytest.approx(2.0)


def test_times_and_memory_are_readable() -> None:
    assert [format_duration(seconds) for seconds in (0, 59.6, 185, 3600)] == ["0:00", "1:00", "3:05", "60:00"]
    now, peak = memory_mb()
    assert 10 < now <= peak or (now, peak) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (7, "7 s"),
        (19, "20 s"),
        (61, "60 s"),
        (95, "2 min"),
        (1800, "30 min"),
        (7800, "2 h 10 min"),
        (7100, "2 h"),
    ],
)
def test_durations_are_told_to_about_a_tenth(seconds: float, words: str) -> None:
    assert approximate_duration(seconds) == words
