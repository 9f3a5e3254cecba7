"""A run in words and figures for people, as plain values that the page draws."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from app.jobs.job import Job, Progress
from app.jobs.progress import tail
from sds3d.comparison.statistics import MEASURES, Measure
from sds3d.console import clock

STATES = {
    "waiting": "Waiting",
    "running": "Running",
    "done": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
_COMMANDS = {"generate": "", "edit": "edit", "refine": "refined", "texture": "texture", "compare": "comparison"}


def card(job: Job, progress: Progress, folder: Path) -> dict[str, Any]:
    """All that the card of one run shows. Pictures are told by their paths on this machine."""
    previews = [int(path.stem.removeprefix("step-")) for path in progress.previews if path.stem.startswith("step-")]
    return {
        "id": job.id,
        "command": job.command,
        "prompt": job.prompt,
        "state": job.state,
        "over": job.over,
        "badge": "Stopping" if job.stopping and not job.over else STATES[job.state],
        "line": line(job, progress),
        "reason": job.reason,
        "share": round(progress.share, 4),
        "figures": figures(job, progress, folder),
        "folder": str(folder),
        "previews": previews,
        "fronts": [[path.parent.name, str(path)] for path in progress.previews if path.name == "front.png"],
        "asset": progress.asset.name if progress.asset else "",
        "splats": (folder / "splats.ply").is_file(),
        "verdict": verdict(progress),
        "table": table(progress.report) if job.command == "compare" else [],
        "sheet": str(folder / "sheet.png") if job.command == "compare" and (folder / "sheet.png").is_file() else "",
        "page": (folder / "index.html").is_file() if job.command == "compare" else False,
        "cancel": not job.over and not job.stopping and not job.outside,
        "resume": progress.resumable,
    }


def line(job: Job, progress: Progress) -> str:
    """Where a run stands, in one line."""
    if job.state == "waiting":
        return "Next in the queue." if progress.place <= 1 else f"Place {progress.place} in the queue."
    if job.state == "running":
        if job.stopping:
            return "Exporting what there is."
        return _going(job, progress)
    spent = _spent(job, progress)
    what = "runs" if job.command == "compare" else "steps"
    if job.state == "done":
        done = f"{progress.step:,} {what}" if progress.step else "Done"
        return f"{done} in {spent} min." if spent else f"{done}."
    where = f"at {what[:-1]} {progress.step:,} of {progress.steps:,}" if progress.steps else "before it began"
    return f"{STATES[job.state]} {where}." + (" What there was is kept." if job.state == "stopped" else "")


def _spent(job: Job, progress: Progress) -> str:
    """How long a run took: by its own report, or by the clock of the queue; empty where neither knows."""
    seconds = progress.report.get("seconds")
    if isinstance(seconds, dict):
        return clock(sum(part for part in seconds.values() if isinstance(part, int | float)))
    return clock(job.ended - job.began) if job.began and job.ended and not job.outside else ""


def _going(job: Job, progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f" · {clock(progress.seconds_left)} min left"
    if job.command == "compare":
        return f"{progress.step} of {progress.steps} runs done{left}." if progress.steps else "Starting."
    if progress.step == 0:
        waited = round(time.time() - job.began) if job.began else 0
        return f"Opening the prior, {waited} s."
    if progress.steps and progress.step >= progress.steps:
        return "Making the mesh and its pictures."
    return f"Step {progress.step:,} of {progress.steps:,}{left}."


def figures(job: Job, progress: Progress, folder: Path) -> list[list[str]]:
    """(name, value, what it means) of a run's health."""
    if job.command == "compare":
        return []
    rows: list[list[str]] = []
    if progress.seconds_per_step:
        pace = progress.seconds_per_step
        rows.append(["Pace", f"{1000 * pace:.0f} ms/step", f"{1 / pace:.1f} steps a second"])
    if progress.gradient is not None:
        about = "How hard the prior pulls, root mean square. There is no loss worth looking at."
        rows.append(["Gradient", f"{progress.gradient:.3f}", about])
    if progress.scene:
        rows.append(["Scene", progress.scene, "Its size"])
    if progress.memory_mb is not None:
        rows.append(["Memory", f"{progress.memory_mb / 1024:.2f} GB", "Of the run's process"])
    fronts = progress.fronts if progress.fronts is not None else _counted(folder)
    if fronts is not None:
        about = "Counted by the judge; one is right, more is the Janus defect, none is not there yet"
        rows.append(["Fronts", str(fronts), about])
    return rows


def verdict(progress: Progress) -> list[str]:
    """What was measured of a finished run, a line each."""
    told: list[str] = []
    judge, match = progress.report.get("judge"), progress.report.get("mesh_against_scene")
    if isinstance(judge, dict):
        told.append(f"The judge takes {judge['recognised']} of {judge['views']} views for a {judge['subject']}.")
        if (count := judge.get("janus", {}).get("fronts") or 0) > 1:
            told.append(f"It finds {count} fronts; another seed often has one.")
    if isinstance(match, dict):
        told.append(f"Mesh against scene: outline {100 * match['iou']:.0f} % the same, {match['psnr']:.1f} dB.")
    mesh = progress.report.get("mesh")
    if isinstance(mesh, dict):
        told.append(f"{mesh['faces']:,} triangles, {mesh['texture']} px texture.")
    return told


def table(report: dict[str, Any]) -> list[list[str]]:
    """How the objectives of a comparison stand: the heads, then a row for each; nothing before there is one."""
    rows = report.get("standings")
    if not isinstance(rows, dict) or not rows:
        return []
    found = [["Objective", *(measure.title for measure in MEASURES)]]
    for name, row in rows.items():
        found.append([str(name), *(_cell(measure, row.get(measure.key) or {}) for measure in MEASURES)])
    return found


def _cell(measure: Measure, standing: dict[str, Any]) -> str:
    spread = standing.get("spread")
    mean = measure.told(standing.get("mean"))
    return mean if spread is None else f"{mean} ± {measure.told(spread)}"


def glimpse(job: Job, folder: Path) -> dict[str, Any]:
    """A run as the gallery shows it."""
    names = ("sheet.png",) if job.command == "compare" else ("contact.png", "picture.png")
    picture = next((folder / name for name in names if (folder / name).is_file()), None)
    views, across = 8, 4
    if picture is None:
        found = sorted((folder / "previews").glob("step-*.png"))
        picture, views, across = (found[-1] if found else None), 4, 4
    return {
        "id": job.id,
        "prompt": job.prompt or job.id,
        "kind": _COMMANDS[job.command],
        "state": job.state,
        "badge": STATES[job.state],
        "over": job.over,
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(job.made)) if job.made else "",
        "picture": str(picture) if picture else "",
        "whole": job.command == "compare" or (picture is not None and picture.name == "picture.png"),
        "views": [views, across],
        "reason": job.reason,
        "again": job.command == "generate",
        "resume": job.state in ("stopped", "failed", "interrupted"),
        "asset": (folder / "asset.glb").is_file(),
    }


def _counted(folder: Path) -> int | None:
    """Fronts that the judge found last, on the way."""
    rows = tail(folder / "metrics.jsonl")
    found = rows[-1].get("fronts") if rows else None
    return found if isinstance(found, int) else None
