"""How far a run is, read from its folder: the ends of files only. A line that is half written is passed over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.jobs.job import RESUMABLE_STATES, Job, Progress
from configs.serialization import read_fields

TAIL_BYTES = 65_536
"""Bytes that are read from the end of a file: some hundred steps, so that a count of fronts is among them."""
PACE_WINDOW = 20
"""Steps over which the time of a step is averaged."""
MAX_LINE_CHARS = 200
"""Characters of a line that is passed on."""
_RESULT_FILES = (
    *("asset.glb", "picture.png", "splats.ply", "turntable.mp4", "contact.png"),
    *("results.json", "sheet.png", "index.html", "report.json", "run.yaml"),
)
"""Files that a user may want, the asset first."""
_REPORT_FILES = {"compare": "results.json"}


def progress_of(job: Job, folder: Path, log: Path, place: int = 0) -> Progress:
    """All that is known of a run. What can not be read is left out."""
    if job.command == "compare":
        return _comparison_progress(job, folder, log, place)
    rows = read_tail(folder / "metrics.jsonl")
    last = rows[-1] if rows else {}
    report = read_json(folder / "report.json")
    steps = _non_negative_int(read_fields(folder / "run.yaml", ("steps",)).get("steps"))
    step = max(_non_negative_int(last.get("step")), _non_negative_int(report.get("steps")) if not rows else 0)
    durations = [number for row in rows[-PACE_WINDOW:] if (number := _finite_float(row.get("seconds"))) is not None]
    seconds = sum(durations) / len(durations) if durations else None
    files = finished_files(folder)
    return Progress(
        step=step,
        steps=steps,
        fraction=min(1.0, step / steps) if steps else 0.0,
        seconds_left=seconds * max(0, steps - step) if seconds is not None and steps else None,
        seconds_per_step=seconds,
        grad_rms=_finite_float(last.get("gradient")),
        scene=str(last.get("scene", report.get("scene", ""))),
        memory_mb=_finite_float(last.get("memory_mb")),
        fronts=_num_fronts(report, rows),
        queue_position=place,
        last_line=last_line(log),
        previews=tuple(sorted((folder / "previews").glob("step-*.png"))),
        asset=next((path for path in files if path.name in ("asset.glb", "picture.png")), None),
        files=files,
        resumable=job.state in RESUMABLE_STATES and has_checkpoint(folder),
        report=report,
    )


def sample_metrics(folder: Path, max_rows: int = 200) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl from its first step to its last, about so many, evenly spread.

    Costs `max_rows` short reads, however long the file is.
    """
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            found: dict[float, dict[str, Any]] = {}
            for index in range(max_rows):
                file.seek(start := size * index // max_rows)
                if start:
                    file.readline()
                for row in _parse_rows([file.readline()]):
                    found[_non_negative_int(row.get("step"))] = row
    except OSError:
        return []
    for row in read_tail(folder / "metrics.jsonl")[-1:]:
        found[_non_negative_int(row.get("step"))] = row
    return [found[step] for step in sorted(found)]


def read_tail(path: Path) -> list[dict[str, Any]]:
    """The last rows of a file with one JSON object a line; broken lines are left out."""
    return list(_parse_rows(_read_end(path).split(b"\n")))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def last_line(log: Path) -> str:
    """The last whole line of what a process said, in plain words."""
    for line in reversed(_plain_lines(log)):
        if line.startswith("{"):
            for row in _parse_rows([line.encode()]):
                if "message" in row and (message := str(row["message"]).strip()):
                    return message.splitlines()[-1][:MAX_LINE_CHARS]
        else:
            return line[:MAX_LINE_CHARS]
    return ""


def error_line(log: Path) -> str:
    """Why a process failed, in one line, by what it said last; empty where it did not complain."""
    lines = _plain_lines(log)
    for line in reversed(lines):
        if line.startswith("sds3d: "):
            return line.removeprefix("sds3d: ")[: 2 * MAX_LINE_CHARS]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return f"it broke down: {lines[-1][:MAX_LINE_CHARS]}"
    return ""


def report_mtime_ns(job: Job, folder: Path) -> int:
    """When the report of a run was written, in ns since 1970; 0 where there is none."""
    try:
        return (folder / _REPORT_FILES.get(job.command, "report.json")).stat().st_mtime_ns
    except OSError:
        return 0


def is_complete(job: Job, folder: Path) -> bool:
    """Whether a run whose report is there went to its last step."""
    if job.command == "compare":
        finished_runs, total = _count_runs(job, folder)
        return finished_runs >= total
    steps = _non_negative_int(read_fields(folder / "run.yaml", ("steps",)).get("steps"))
    return _non_negative_int(read_json(folder / "report.json").get("steps")) >= steps


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*.safetensors"))


def finished_files(folder: Path) -> tuple[Path, ...]:
    """Files that a user may want, of those that are there."""
    more = sorted(folder.glob("asset_*.glb"))
    return tuple(path for path in (*(folder / name for name in _RESULT_FILES), *more) if path.is_file())


def _comparison_progress(job: Job, folder: Path, log: Path, place: int) -> Progress:
    finished_runs, total = _count_runs(job, folder)
    latest: dict[str, Any] = next((row for row in reversed(read_tail(log)) if "share" in row), {})
    results = [read_json(path) for path in folder.glob("runs/*/result.json")]
    already_counted = any(all(row.get(key) == latest.get(key) for key in ("objective", "seed")) for row in results)
    # What the log says last may be of a run that is among those that are done.
    fraction = 0.0 if job.is_over or already_counted else _finite_float(latest.get("share")) or 0.0
    files = finished_files(folder)
    return Progress(
        step=finished_runs,
        steps=total,
        fraction=min(1.0, (finished_runs + fraction) / total) if total else 0.0,
        seconds_left=None if job.is_over else _seconds_left(latest, results, total - finished_runs - fraction),
        queue_position=place,
        last_line=last_line(log),
        previews=tuple(sorted(folder.glob("runs/*/front.png"))),
        asset=next((path for path in files if path.name == "index.html"), None),
        files=files,
        resumable=job.state in RESUMABLE_STATES and not job.external,
        report=read_json(folder / "results.json"),
    )


def _seconds_left(latest: dict[str, Any], results: list[dict[str, Any]], runs: float) -> float | None:
    """Seconds that so many runs of a comparison will take, by the last line of one or by those that are done."""
    fraction, eta_s = _finite_float(latest.get("share")), _finite_float(latest.get("left_seconds"))
    if fraction is not None and eta_s is not None and 0 < fraction < 1:
        return runs * eta_s / (1 - fraction)
    known = [seconds for row in results if (seconds := _finite_float(row.get("seconds"))) is not None]
    return runs * sum(known) / len(known) if known else None


def _count_runs(job: Job, folder: Path) -> tuple[int, int]:
    """(runs of a comparison that are done, all runs)."""
    from sds3d.comparison.compare import OBJECTIVES

    finished_runs = sum(1 for _ in folder.glob("runs/*/result.json"))
    flags: dict[str, str] = {}
    for word, after in zip(job.args, (*job.args[1:], ""), strict=False):
        name, sign, value = word.partition("=")
        flags[name] = value if sign else after
    names = {name.strip() for name in flags.get("--objectives", OBJECTIVES).split(",") if name.strip()}
    seeds = flags.get("--seeds", "3")
    total = len(names) * int(seeds) if seeds.isdecimal() else 0
    return finished_runs, finished_runs if job.external else total


def _read_end(path: Path) -> bytes:
    """The end of a file, from a whole line on."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            content = file.read()
    except OSError:
        return b""
    return content.partition(b"\n")[2] if start else content


def _plain_lines(log: Path) -> list[str]:
    """The last lines of a log without colours, each as it stood when the next one was written over it."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read_end(log).decode("utf-8", "replace"))
    return [words for line in text.splitlines() if (words := line.strip())]


def _parse_rows(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _finite_float(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        return None
    return float(value)


def _non_negative_int(value: object) -> int:
    value_of_number = _finite_float(value)
    return int(value_of_number) if value_of_number is not None and value_of_number > 0 else 0


def _num_fronts(report: dict[str, Any], rows: list[dict[str, Any]]) -> int | None:
    """Fronts of the finished asset; while there is none, of the scene when it was last looked at."""
    try:
        found = report["judge"]["janus"]["fronts"]
    except (KeyError, TypeError):
        found = next((row["fronts"] for row in reversed(rows) if "fronts" in row), None)
    return found if isinstance(found, int) else None
