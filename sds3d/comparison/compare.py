"""`sds3d compare`: objectives side by side, on one prompt and with equal means."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.presets import PRESETS, preset
from configs.registry import objective_class
from configs.run import RunConfig
from guidance.priors.base import Prior
from sds3d.atomic_files import write_bytes
from sds3d.cli.arguments import add_verbosity_flags, console_of, parser
from sds3d.comparison.entry import Budget, Entry, Unit, finished, run_entry
from sds3d.comparison.page import PAGE, write_page
from sds3d.comparison.sheet import write_sheet
from sds3d.comparison.statistics import METRICS, MetricStats, Row, summarize, table
from sds3d.console import Console, format_duration
from sds3d.models.loading import MINI, is_mini, load_prior
from sds3d.runs.provenance import versions
from sds3d.training.loop import StopSignal, device_of, handle_signals
from sds3d.training.trainer import Trainer

OBJECTIVES = "sds,vsd,esd,asd,csd,bsd,nfsd,ism"
"""What is compared where nothing is named."""
RESULTS = "results.json"
_ASKED = "comparison.json"
_INTERRUPTED = 130


@dataclass(frozen=True)
class Comparison:
    """What all runs of a comparison have in common; a folder holds one comparison."""

    prompt: str
    budget: Budget
    preset: str
    prior: str

    def budget_text(self) -> str:
        """What every run has, as words for people."""
        return f"{self.budget.told()} a run, preset {self.preset}, prior {self.prior}"

    def told(self) -> str:
        """All of it as words for people."""
        return f'"{self.prompt}", {self.budget_text()}'


def compare(words: list[str]) -> int:
    """Runs every objective with every seed, then writes the table, a sheet, the numbers and a page.

    Raises:
        ValueError: a name or a number that does not fit, or a folder that holds another comparison.
        ImportError, OSError: something an objective needs is missing, or the disk refuses.
    """
    given = _flags().parse_args(words)
    console, comparison = console_of(given), Comparison(given.prompt, _budget(given), given.preset, given.prior)
    names = list(dict.fromkeys(name.strip() for name in given.objectives.split(",") if name.strip()))
    if not names:
        raise ValueError(f"no objective is named; give --objectives {OBJECTIVES}")
    if given.seeds < 1:
        raise ValueError(f"seeds is {given.seeds}; expected at least 1")
    entries = [
        Entry(name, replace(asked(comparison, name, given.device), seed=seed))
        for seed in range(given.seeds)
        for name in names
    ]
    prior = load_prior(given.prior, device_of(entries[0].config))
    if remark := prior.validate_prompt(given.prompt):
        console.log(remark)
    out: Path = given.out or Path("runs") / ("compare-" + re.sub(r"[^a-z0-9]+", "-", given.prompt.lower()).strip("-"))
    claim_folder(out, comparison)
    return run_comparison(entries, comparison, prior, out, console)


def asked(comparison: Comparison, objective: str, device: str = "auto") -> RunConfig:
    """The run `sds3d generate` would make with that objective. Raises ValueError if it can not start from a prompt."""
    kind = objective_class(objective)
    for needed, what in ((kind.needs_source, "an asset to change"), (kind.needs_regions, "texts for regions")):
        if needed:
            raise ValueError(f"{objective} needs {what}; comparisons start from a prompt alone")
    run = preset(comparison.preset).run(comparison.prompt, objective, is_mini(comparison.prior))
    return replace(run, prior=comparison.prior, device=device)


def claim_folder(out: Path, comparison: Comparison) -> None:
    """Makes the folder one of this comparison. Raises ValueError if it holds another one or something else."""
    file = out / _ASKED
    content = (json.dumps(asdict(comparison), indent=1) + "\n").encode()
    if file.is_file():
        if file.read_bytes() != content:
            try:
                row = json.loads(file.read_text(encoding="utf-8"))
                told = Comparison(**{**row, "budget": Budget(**row["budget"])}).told()
            except (ValueError, KeyError, TypeError):
                told = "one that can not be read"
            raise ValueError(f"{out} holds another comparison ({told}); give another --out")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} already holds something else; give another --out")
    else:
        write_bytes(file, content)


def run_comparison(entries: Sequence[Entry], comparison: Comparison, prior: Prior, out: Path, console: Console) -> int:
    """Does what is not done yet, keeps everything in `out` up to date, and tells the table. Returns the exit code."""
    runs, stop = out / "runs", StopSignal()
    rows = {entry.told: row for entry in entries if (row := finished(entry, runs)) is not None}
    missing = [entry for entry in entries if entry.told not in rows]
    for entry in {entry.objective: entry for entry in missing}.values():
        Trainer(entry.config, prior, device_of(entry.config))  # What can not be run is refused before hours have gone.
    console.log(f"{comparison.told()}: {_runs(missing)} to do, {len(rows)} done before{_about(comparison, missing)}")
    found: dict[str, dict[str, MetricStats]] = {}
    with handle_signals(stop):
        for number, entry in enumerate(missing):
            row = None if stop.requested else run_entry(entry, prior, comparison.budget, runs, console, stop)
            if row is None:
                break
            rows[entry.told] = row
            found = write_report(rows, entries, comparison, out)
            console.log(f"{number + 1}/{len(missing)} {told(row)}", **_lean(row))
    if stop.requested:
        console.log(f"stopped with {len(rows)} of {len(entries)} runs done; the same command goes on")
    if rows:
        found = found or write_report(rows, entries, comparison, out)
        console.log(f"\n{table(found)}\n\n{out / PAGE}", page=str(out / PAGE), results=str(out / RESULTS))
    return _INTERRUPTED if stop.requested else 0


def write_report(
    rows: Mapping[str, Row], entries: Sequence[Entry], comparison: Comparison, out: Path
) -> dict[str, dict[str, MetricStats]]:
    """Writes the numbers, the sheet and the page of the runs in `out`, and returns how the objectives stand.

    `rows` holds the runs that are done, by `Contestant.told`.
    """
    names = list(dict.fromkeys(entry.objective for entry in entries))
    done = [rows[entry.told] for entry in entries if entry.told in rows]
    ordered = sorted(done, key=lambda row: (names.index(row["objective"]), row["seed"]))
    found = summarize(out, ordered)
    report = {
        **asdict(comparison),
        "versions": versions(),
        "measures": {measure.key: measure.meaning for measure in METRICS},
        "standings": {name: {key: asdict(value) for key, value in row.items()} for name, row in found.items()},
        "runs": ordered,
    }
    write_bytes(out / RESULTS, (json.dumps(report, indent=1) + "\n").encode())
    write_sheet(out, comparison.prompt, ordered)
    write_page(out, comparison.prompt, comparison.budget_text(), ordered, found)
    return found


def told(row: Row) -> str:
    """One run in a line."""
    name = f"{row['objective']}, seed {row['seed']}: {row['steps']} steps in {format_duration(row['seconds'])}"
    if row["trouble"]:
        return f"{name}, then {row['trouble']}"
    judge = row["judge"]
    return f"{name}, recognised in {judge['recognised']} of {judge['views']} views" if judge else name


def _lean(row: Row) -> dict[str, object]:
    """A run for a line of JSON: without its configuration."""
    return {name: value for name, value in row.items() if name != "asked"}


def _runs(entries: Sequence[Entry]) -> str:
    return f"{len(entries)} {'run' if len(entries) == 1 else 'runs'}"


def _about(comparison: Comparison, missing: Sequence[Entry]) -> str:
    """About how long it will take, where that is known."""
    if comparison.budget.unit != "minutes" or not missing:
        return ""
    return f", about {comparison.budget.amount * len(missing):.0f} minutes and some seconds a run"


def _budget(given: argparse.Namespace) -> Budget:
    """What each run may spend; two minutes where nothing is said."""
    units: tuple[tuple[Unit, float | None], ...] = (
        ("minutes", given.minutes),
        ("steps", given.steps),
        ("answers", given.passes),
    )
    for unit, amount in units:
        if amount is not None:
            return Budget(unit, amount)
    return Budget("minutes", 2.0)


def _flags() -> argparse.ArgumentParser:
    p = parser(
        "sds3d compare",
        "Runs objectives on one prompt, each with several seeds and equal means, and lays them side by side: a table,\n"
        "a sheet of pictures, results.json, and index.html with films. Called again, it goes on where it was stopped.",
    )
    p.add_argument("prompt", metavar="PROMPT", help='what to make, such as "a hamburger"')
    p.add_argument("--objectives", default=OBJECTIVES, metavar="NAMES", help=f"with commas (default: {OBJECTIVES})")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, with seeds from 0 (default: 3)")
    means = p.add_mutually_exclusive_group()
    means.add_argument("--minutes", type=float, metavar="M", help="wall-clock of each run (default: 2)")
    means.add_argument("--steps", type=int, metavar="N", help="or steps of each")
    means.add_argument("--passes", type=int, metavar="N", help="or answers of the prior: conditions times pictures")
    p.add_argument("--preset", default="draft", choices=list(PRESETS), help="everything else (default: draft)")
    p.add_argument("--prior", default=MINI, help="name or folder of the diffusion model (default: mini)")
    p.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, or cuda:1 and so on")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="by default under runs/, named after the prompt")
    add_verbosity_flags(p)
    return p
