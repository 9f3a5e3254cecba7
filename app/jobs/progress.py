"""How far a run is, read from its folder: the ends of files only. A line that is half written is passed over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.jobs.job import BROKEN, Job, Progress
from configs.serialization import glance

TAIL = 65_536
"""Bytes that are read from the end of a file: some hundred steps, so that a count of fronts is among them."""
PACE = 20
"""Steps over which the time of a step is averaged."""
SAID = 200
"""Characters of a line that is passed on."""
_FILES = (
    *("asset.glb", "picture.png", "splats.ply", "turntable.mp4", "contact.png"),
    *("results.json", "sheet.png", "index.html", "report.json", "run.yaml"),
)
"""Files that a user may want, the asset first."""
_REPORTS = {"compare": "results.json"}


def progress_of(job: Job, folder: Path, log: Path, place: int = 0) -> Progress:
    """All that is known of a run. What can not be read is left out."""
    if job.command == "compare":
        return _comparison(job, folder, log, place)
    rows = tail(folder / "metrics.jsonl")
    last = rows[-1] if rows else {}
    report = document(folder / "report.json")
    steps = _whole(glance(folder / "run.yaml", ("steps",)).get("steps"))
    step = max(_whole(last.get("step")), _whole(report.get("steps")) if not rows else 0)
    pace = [number for row in rows[-PACE:] if (number := _number(row.get("seconds"))) is not None]
    seconds = sum(pace) / len(pace) if pace else None
    files = finished(folder)
    return Progress(
        step=step,
        steps=steps,
        share=min(1.0, step / steps) if steps else 0.0,
        seconds_left=seconds * max(0, steps - step) if seconds is not None and steps else None,
        seconds_per_step=seconds,
        gradient=_number(last.get("gradient")),
        scene=str(last.get("scene", report.get("scene", ""))),
        memory_mb=_number(last.get("memory_mb")),
        fronts=_fronts(report, rows),
        place=place,
        said=said(log),
        previews=tuple(sorted((folder / "previews").glob("step-*.png"))),
        asset=next((path for path in files if path.name in ("asset.glb", "picture.png")), None),
        files=files,
        resumable=job.state in BROKEN and has_checkpoint(folder),
        report=report,
    )


def curve(folder: Path, most: int = 200) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl from its first step to its last, about so many, evenly spread.

    Costs `most` short reads, however long the file is.
    """
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, 2)
            found: dict[float, dict[str, Any]] = {}
            for place in range(most):
                file.seek(start := size * place // most)
                if start:
                    file.readline()
                for row in _rows([file.readline()]):
                    found[_whole(row.get("step"))] = row
    except OSError:
        return []
    for row in tail(folder / "metrics.jsonl")[-1:]:
        found[_whole(row.get("step"))] = row
    return [found[step] for step in sorted(found)]


def tail(path: Path) -> list[dict[str, Any]]:
    """The last rows of a file with one JSON object a line; broken lines are left out."""
    return list(_rows(_ending(path).split(b"\n")))


def document(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def said(log: Path) -> str:
    """The last whole line of what a process said, in plain words."""
    for line in reversed(_plain(log)):
        if line.startswith("{"):
            for row in _rows([line.encode()]):
                if "message" in row and (words := str(row["message"]).strip()):
                    return words.splitlines()[-1][:SAID]
        else:
            return line[:SAID]
    return ""


def trouble(log: Path) -> str:
    """Why a process failed, in one line, by what it said last; empty where it did not complain."""
    lines = _plain(log)
    for line in reversed(lines):
        if line.startswith("sds3d: "):
            return line.removeprefix("sds3d: ")[: 2 * SAID]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return f"it broke down: {lines[-1][:SAID]}"
    return ""


def report_age(job: Job, folder: Path) -> int:
    """When the report of a run was written, in ns since 1970; 0 where there is none."""
    try:
        return (folder / _REPORTS.get(job.command, "report.json")).stat().st_mtime_ns
    except OSError:
        return 0


def complete(job: Job, folder: Path) -> bool:
    """Whether a run whose report is there went to its last step."""
    if job.command == "compare":
        done, total = _counted(job, folder)
        return done >= total
    steps = _whole(glance(folder / "run.yaml", ("steps",)).get("steps"))
    return _whole(document(folder / "report.json").get("steps")) >= steps


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("step-*.safetensors"))


def finished(folder: Path) -> tuple[Path, ...]:
    """Files that a user may want, of those that are there."""
    more = sorted(folder.glob("asset_*.glb"))
    return tuple(path for path in (*(folder / name for name in _FILES), *more) if path.is_file())


def _comparison(job: Job, folder: Path, log: Path, place: int) -> Progress:
    done, total = _counted(job, folder)
    now: dict[str, Any] = next((row for row in reversed(tail(log)) if "share" in row), {})
    results = [document(path) for path in folder.glob("runs/*/result.json")]
    counted = any(all(row.get(key) == now.get(key) for key in ("objective", "seed")) for row in results)
    # What the log says last may be of a run that is among those that are done.
    share = 0.0 if job.over or counted else _number(now.get("share")) or 0.0
    files = finished(folder)
    return Progress(
        step=done,
        steps=total,
        share=min(1.0, (done + share) / total) if total else 0.0,
        seconds_left=None if job.over else _left(now, results, total - done - share),
        place=place,
        said=said(log),
        previews=tuple(sorted(folder.glob("runs/*/front.png"))),
        asset=next((path for path in files if path.name == "index.html"), None),
        files=files,
        resumable=job.state in BROKEN and not job.outside,
        report=document(folder / "results.json"),
    )


def _left(now: dict[str, Any], results: list[dict[str, Any]], runs: float) -> float | None:
    """Seconds that so many runs of a comparison will take, by the last line of one or by those that are done."""
    share, left = _number(now.get("share")), _number(now.get("left_seconds"))
    if share is not None and left is not None and 0 < share < 1:
        return runs * left / (1 - share)
    known = [seconds for row in results if (seconds := _number(row.get("seconds"))) is not None]
    return runs * sum(known) / len(known) if known else None


def _counted(job: Job, folder: Path) -> tuple[int, int]:
    """(runs of a comparison that are done, all runs)."""
    from sds3d.comparison.compare import OBJECTIVES

    done = sum(1 for _ in folder.glob("runs/*/result.json"))
    given: dict[str, str] = {}
    for word, after in zip(job.words, (*job.words[1:], ""), strict=False):
        name, sign, value = word.partition("=")
        given[name] = value if sign else after
    names = {name.strip() for name in given.get("--objectives", OBJECTIVES).split(",") if name.strip()}
    seeds = given.get("--seeds", "3")
    total = len(names) * int(seeds) if seeds.isdecimal() else 0
    return done, done if job.outside else total


def _ending(path: Path) -> bytes:
    """The end of a file, from a whole line on."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL)
            file.seek(start)
            content = file.read()
    except OSError:
        return b""
    return content.partition(b"\n")[2] if start else content


def _plain(log: Path) -> list[str]:
    """The last lines of a log without colours, each as it stood when the next one was written over it."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _ending(log).decode("utf-8", "replace"))
    return [words for line in text.splitlines() if (words := line.strip())]


def _rows(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        return None
    return float(value)


def _whole(value: object) -> int:
    number = _number(value)
    return int(number) if number is not None and number > 0 else 0


def _fronts(report: dict[str, Any], rows: list[dict[str, Any]]) -> int | None:
    """Fronts of the finished asset; while there is none, of the scene when it was last looked at."""
    try:
        found = report["judge"]["janus"]["fronts"]
    except (KeyError, TypeError):
        found = next((row["fronts"] for row in reversed(rows) if "fronts" in row), None)
    return found if isinstance(found, int) else None
