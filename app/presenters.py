"""A run in words and figures for people, as plain values that the page draws."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from app.jobs.job import Job, Progress
from app.jobs.progress import read_tail
from sds3d.comparison.statistics import METRICS, Metric
from sds3d.console import format_duration

STATE_LABELS = {
    "waiting": "Waiting",
    "running": "Running",
    "done": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
_COMMAND_LABELS = {"generate": "", "edit": "edit", "refine": "refined", "texture": "texture", "compare": "comparison"}


def run_card(job: Job, progress: Progress, folder: Path) -> dict[str, Any]:
    """All that the card of one run shows. Pictures are told by their paths on this machine."""
    previews = [int(path.stem.removeprefix("step-")) for path in progress.previews if path.stem.startswith("step-")]
    return {
        "id": job.id,
        "command": job.command,
        "prompt": job.prompt,
        "state": job.state,
        "over": job.is_over,
        "badge": "Stopping" if job.stopping and not job.is_over else STATE_LABELS[job.state],
        "line": status_line(job, progress),
        "reason": job.reason,
        "share": round(progress.fraction, 4),
        "figures": health_stats(job, progress, folder),
        "folder": str(folder),
        "previews": previews,
        "fronts": [[path.parent.name, str(path)] for path in progress.previews if path.name == "front.png"],
        "asset": progress.asset.name if progress.asset else "",
        "splats": (folder / "splats.ply").is_file(),
        "verdict": evaluation_lines(progress),
        "table": comparison_table(progress.report) if job.command == "compare" else [],
        "sheet": str(folder / "sheet.png") if job.command == "compare" and (folder / "sheet.png").is_file() else "",
        "page": (folder / "index.html").is_file() if job.command == "compare" else False,
        "cancel": not job.is_over and not job.stopping and not job.external,
        "resume": progress.resumable,
    }


def status_line(job: Job, progress: Progress) -> str:
    """Where a run stands, in one line."""
    if job.state == "waiting":
        return (
            "Next in the queue." if progress.queue_position <= 1 else f"Place {progress.queue_position} in the queue."
        )
    if job.state == "running":
        if job.stopping:
            return "Exporting what there is."
        return _running_line(job, progress)
    elapsed = _elapsed(job, progress)
    unit = "runs" if job.command == "compare" else "steps"
    if job.state == "done":
        done = f"{progress.step:,} {unit}" if progress.step else "Done"
        return f"{done} in {elapsed} min." if elapsed else f"{done}."
    position = f"at {unit[:-1]} {progress.step:,} of {progress.steps:,}" if progress.steps else "before it began"
    return f"{STATE_LABELS[job.state]} {position}." + (" What there was is kept." if job.state == "stopped" else "")


def _elapsed(job: Job, progress: Progress) -> str:
    """How long a run took: by its own report, or by the clock of the queue; empty where neither knows."""
    seconds = progress.report.get("seconds")
    if isinstance(seconds, dict):
        return format_duration(sum(part for part in seconds.values() if isinstance(part, int | float)))
    return (
        format_duration(job.ended_at - job.started_at) if job.started_at and job.ended_at and not job.external else ""
    )


def _running_line(job: Job, progress: Progress) -> str:
    left = "" if progress.seconds_left is None else f" · {format_duration(progress.seconds_left)} min left"
    if job.command == "compare":
        return f"{progress.step} of {progress.steps} runs done{left}." if progress.steps else "Starting."
    if progress.step == 0:
        waited = round(time.time() - job.started_at) if job.started_at else 0
        return f"Opening the prior, {waited} s."
    if progress.steps and progress.step >= progress.steps:
        return "Making the mesh and its pictures."
    return f"Step {progress.step:,} of {progress.steps:,}{left}."


def health_stats(job: Job, progress: Progress, folder: Path) -> list[list[str]]:
    """(name, value, what it means) of a run's health."""
    if job.command == "compare":
        return []
    rows: list[list[str]] = []
    if progress.seconds_per_step:
        seconds = progress.seconds_per_step
        rows.append(["Pace", f"{1000 * seconds:.0f} ms/step", f"{1 / seconds:.1f} steps a second"])
    if progress.grad_rms is not None:
        meaning = "How hard the prior pulls, root mean square. There is no loss worth looking at."
        rows.append(["Gradient", f"{progress.grad_rms:.3f}", meaning])
    if progress.scene:
        rows.append(["Scene", progress.scene, "Its size"])
    if progress.memory_mb is not None:
        rows.append(["Memory", f"{progress.memory_mb / 1024:.2f} GB", "Of the run's process"])
    fronts = progress.fronts if progress.fronts is not None else _last_fronts(folder)
    if fronts is not None:
        meaning = "Counted by the judge; one is right, more is the Janus defect, none is not there yet"
        rows.append(["Fronts", str(fronts), meaning])
    return rows


def evaluation_lines(progress: Progress) -> list[str]:
    """What was measured of a finished run, a line each."""
    lines: list[str] = []
    judge, fidelity = progress.report.get("judge"), progress.report.get("mesh_against_scene")
    if isinstance(judge, dict):
        lines.append(f"The judge takes {judge['recognised']} of {judge['views']} views for a {judge['subject']}.")
        if (count := judge.get("janus", {}).get("fronts") or 0) > 1:
            lines.append(f"It finds {count} fronts; another seed often has one.")
    if isinstance(fidelity, dict):
        lines.append(f"Mesh against scene: outline {100 * fidelity['iou']:.0f} % the same, {fidelity['psnr']:.1f} dB.")
    mesh = progress.report.get("mesh")
    if isinstance(mesh, dict):
        lines.append(f"{mesh['faces']:,} triangles, {mesh['texture']} px texture.")
    return lines


def comparison_table(report: dict[str, Any]) -> list[list[str]]:
    """How the objectives of a comparison stand: the heads, then a row for each; nothing before there is one."""
    rows = report.get("standings")
    if not isinstance(rows, dict) or not rows:
        return []
    found = [["Objective", *(measure.title for measure in METRICS)]]
    for name, row in rows.items():
        found.append([str(name), *(_cell(measure, row.get(measure.key) or {}) for measure in METRICS)])
    return found


def _cell(measure: Metric, standing: dict[str, Any]) -> str:
    spread = standing.get("spread")
    mean = measure.told(standing.get("mean"))
    return mean if spread is None else f"{mean} ± {measure.told(spread)}"


def gallery_item(job: Job, folder: Path) -> dict[str, Any]:
    """A run as the gallery shows it."""
    names = ("sheet.png",) if job.command == "compare" else ("contact.png", "picture.png")
    image = next((folder / name for name in names if (folder / name).is_file()), None)
    views, columns = 8, 4
    if image is None:
        found = sorted((folder / "previews").glob("step-*.png"))
        image, views, columns = (found[-1] if found else None), 4, 4
    return {
        "id": job.id,
        "prompt": job.prompt or job.id,
        "kind": _COMMAND_LABELS[job.command],
        "state": job.state,
        "badge": STATE_LABELS[job.state],
        "over": job.is_over,
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created_at)) if job.created_at else "",
        "picture": str(image) if image else "",
        "whole": job.command == "compare" or (image is not None and image.name == "picture.png"),
        "views": [views, columns],
        "reason": job.reason,
        "again": job.command == "generate",
        "resume": job.state in ("stopped", "failed", "interrupted"),
        "asset": (folder / "asset.glb").is_file(),
    }


def _last_fronts(folder: Path) -> int | None:
    """Fronts that the judge found last, on the way."""
    rows = read_tail(folder / "metrics.jsonl")
    found = rows[-1].get("fronts") if rows else None
    return found if isinstance(found, int) else None
