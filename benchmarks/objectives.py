"""Makes the same assets with every objective as set for the embedded prior, and counts what the judge recognises.

    python benchmarks/objectives.py [--hours 3] [--steps 400] [--objectives sds,vsd] [--out runs/objectives]

One run for each objective and prompt, seed 0. Runs that are finished are kept when the command is run again, and it
stops in good order on Ctrl-C or when its hours are over. What there is then goes to docs/objectives.md, .json and .png.

Objectives that need more than a prompt get it: those for flow-matching priors ask the embedded prior as one, those for
regions ask for the upper and the lower half by themselves, and those that edit change the asset that SDS made of the
prompt before into this one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from claims import recipe_of
from gallery import PROMPTS
from PIL import Image, ImageDraw

from configs.presets import preset
from configs.registry import OBJECTIVES
from configs.run import Region
from sds3d.atomic_files import write_bytes
from sds3d.comparison.entry import Budget, Entry, finished, run_entry
from sds3d.comparison.sheet import FRONT, POSTER_SIZE
from sds3d.comparison.statistics import Row
from sds3d.console import Console
from sds3d.evaluation.scene_evaluation import RECOGNISED
from sds3d.models.loading import MINI, MINI_FLOW, load_prior
from sds3d.runs.provenance import versions
from sds3d.training.loop import StopSignal, handle_signals

LOOKS = ("probability", "saturation", "contrast", "sharpness")
"""Means of all runs; see `sds3d.comparison.statistics.METRICS`."""
LONGER = {"csm": 4, "pds": 4}
"""Who takes so many times the steps of the others: with the rates that suit a draft it is not done sooner."""
SHOWN = 6
"""Prompts in the picture."""
DOCS = Path(__file__).parent.parent / "docs"


def contestant(name: str, prompt: str, before: str, out: Path) -> Entry:
    """The preset's run with an objective and what that needs; `before` is the prompt that an edit starts from."""
    run, kind = preset("draft").run(prompt, name), OBJECTIVES[name]
    if kind.needs_flow_prior:
        run = replace(run, prior=MINI_FLOW)
    if kind.needs_regions:
        run = replace(run, regions=halves(prompt))
    if kind.needs_source:
        run = replace(run, source_run=str(contestant("sds", before, "", out).folder(folder_of(before, out))))
    return Entry(name, run)


def halves(prompt: str) -> tuple[Region, Region]:
    """The upper and the lower half, each asked for what the prompt says."""
    return Region(prompt, (0.0, 0.5, 0.0), 0.5), Region(prompt, (0.0, -0.5, 0.0), 0.5)


def folder_of(prompt: str, out: Path) -> Path:
    """Where the runs of a prompt are."""
    return out / prompt.replace(" ", "-")


def run_all(given: argparse.Namespace, console: Console) -> list[Row]:
    """Every run that is done already or fits into the hours, prompt after prompt, edits after all others."""
    over, stop, rows, prompts = time.monotonic() + 3600 * given.hours, StopSignal(), [], PROMPTS[: given.prompts]
    priors = {name: load_prior(name, torch.device("cpu")) for name in (MINI, MINI_FLOW)}
    first, last = (
        [name for name in given.objectives if OBJECTIVES[name].needs_source is edits] for edits in (False, True)
    )
    with handle_signals(stop):
        for names, (place, prompt) in product((first, last), enumerate(prompts)):
            for name in names:
                entry = contestant(name, prompt, prompts[place - 1], given.out)
                runs = folder_of(prompt, given.out)
                row, steps = finished(entry, runs), given.steps * LONGER.get(name, 1)
                if row is not None and row["steps"] != steps and row["trouble"] is None:
                    row = None
                if row is None and not stop.requested and time.monotonic() < over:
                    row = run_entry(entry, priors[entry.config.prior], Budget("steps", steps), runs, console, stop)
                if row is not None:
                    rows.append({**row, "folder": str(runs / Path(row["folder"]).name)})
                    console.log(f"{prompt}, {name}: {_recognised(row)} of 8 views")
    return rows


def _recognised(row: Row) -> int:
    return row["judge"]["recognised"] if row["judge"] else 0


def report(rows: Sequence[Row], steps: int) -> dict[str, Any]:
    """Everything as plain data, objective by objective."""
    table = {}
    for name in dict.fromkeys(row["objective"] for row in rows):
        mine = [row for row in rows if row["objective"] == name]
        whole = [row for row in mine if row["trouble"] is None]

        def mean(key: str, of: Sequence[Row] = whole) -> float | None:
            return round(statistics.mean(row[key] for row in of), 4) if of else None

        table[name] = {
            "assets": len(mine),
            "steps": steps * LONGER.get(name, 1),
            "recognised": sum(_recognised(row) >= RECOGNISED for row in mine),
            "views_of_8": round(statistics.mean(_recognised(row) for row in mine), 2),
            "probability": round(statistics.mean(row["judge"]["probability"] for row in whole), 4) if whole else None,
            "saturation": mean("saturation"),
            "contrast": mean("contrast"),
            "sharpness": mean("sharpness"),
            "answers_per_view": round(statistics.mean(row["answers_per_step"] for row in mine) / 4, 2),
            "by_prompt": {row["prompt"]: _recognised(row) for row in mine},
            "recipe": recipe_of(mine[0]),
        }
    return {"steps": steps, "versions": versions(), "objectives": table}


def told(data: dict[str, Any]) -> str:
    """The page docs/objectives.md."""
    lines = [
        "# Objectives with the embedded prior",
        "",
        f"The prompts of the gallery, {data['steps']} steps of 4 views, seed 0, each objective with the values chosen "
        "for the embedded prior (`configs/tuned.py`). An asset counts as recognised where the judge, which never "
        "guides a run, takes at least 5 of 8 views for what was asked, among 178 names; `probability` is what it gives "
        "to that. rfds and "
        "rfds-rev ask the embedded prior as a flow-matching one, regions asks for two halves by themselves, "
        "dds and pds change the asset that sds made of the prompt before. With the rates that suit a draft, "
        f"{' and '.join(LONGER)} are not done so soon and take {LONGER['pds']} times the steps. Written by `python "
        "benchmarks/objectives.py`; all numbers are in [objectives.json](objectives.json).",
        "",
        "![Every objective, the same prompts](objectives.png)",
        "",
        "| objective | recognised | views of 8 | probability | saturation | contrast | sharpness "
        "| answers of the prior a view |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(data["objectives"].items()):
        figures = [f"{row[key]:.3f}" if row[key] is not None else "–" for key in LOOKS]
        lines.append(
            f"| {name} | {row['recognised']} of {row['assets']} | {row['views_of_8']:.1f} | {' | '.join(figures)} "
            f"| {row['answers_per_view']:g} |"
        )
    return "\n".join([*lines, ""])


def picture(rows: Sequence[Row]) -> Image.Image:
    """Fronts: a row for each objective, a column for each of the first prompts."""
    names = sorted({row["objective"] for row in rows})
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))[:SHOWN]
    side, left, top = 128, 72, 18
    sheet = Image.new("RGB", (left + side * len(prompts), top + side * len(names)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, prompt in enumerate(prompts):
        draw.text((left + column * side + 6, 4), prompt, fill="black")
    for line, name in enumerate(names):
        draw.text((4, top + line * side + side // 2), name, fill="black")
    for row in rows:
        file = Path(row["folder"]) / FRONT
        if row["prompt"] in prompts and file.is_file():
            place = (left + prompts.index(row["prompt"]) * side, top + names.index(row["objective"]) * side)
            with Image.open(file) as front:
                sheet.paste(front.convert("RGB").reduce(POSTER_SIZE // side), place)
    return sheet


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--hours", type=float, default=3.0, help="no run is started after this (default: 3)")
    parser.add_argument("--steps", type=int, default=400, help="of every run (default: 400)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="of the twelve, the first so many")
    parser.add_argument("--objectives", type=lambda names: names.split(","), default=list(OBJECTIVES))
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    rows = run_all(given, Console())
    if not rows:
        return
    data = report(rows, given.steps)
    write_bytes(given.docs / "objectives.json", (json.dumps(data, indent=1) + "\n").encode())
    write_bytes(given.docs / "objectives.md", told(data).encode())
    picture(rows).save(given.docs / "objectives.png")


if __name__ == "__main__":
    main()
