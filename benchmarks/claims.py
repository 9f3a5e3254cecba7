"""Tries what papers claim of their objectives, in miniature, on the embedded prior; holds or not, it is written down.

    python benchmarks/claims.py [--hours 6] [--steps 400] [--seeds 3] [--out runs/claims]

Every variant makes every prompt with every seed, with the same number of steps. Runs that are finished are kept when
the command is run again, and it stops in good order on Ctrl-C or when its hours are over. What there is then goes to
docs/claims.md and docs/claims.json.

A claim compares two variants: differences are taken between runs of the same prompt and seed and averaged for each
prompt, and the interval is Student's t over the prompts (95 %), which are what a claim should generalise over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from configs.presets import preset
from configs.run import RunConfig
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.sds import SDS
from guidance.priors.base import Prior
from sds3d.atomic_files import write_bytes
from sds3d.comparison.entry import Budget, Entry, finished, run_entry
from sds3d.comparison.statistics import METRICS, Row, summarize
from sds3d.console import Console
from sds3d.evaluation.scene_evaluation import RECOGNISED
from sds3d.models.loading import MINI, is_mini, load_prior
from sds3d.runs.provenance import versions
from sds3d.training.loop import StopSignal, handle_signals

PROMPTS = ("a teddy bear", "a cat", "a red armchair", "a rabbit", "a horse", "a toy train")
"""All have a front that the judge can tell."""
HIGH = 30.0
"""Guidance that is high for the embedded prior, which is at its best with 2."""
ENOUGH = 3
"""Prompts without which nothing is said of a claim."""
DOCS = Path(__file__).parent.parent / "docs"
Verdict = Literal["holds", "the opposite", "undecided", "too few runs"]


@dataclass(frozen=True)
class Claim:
    """One variant is said to differ from another in one measure."""

    text: str
    source: str
    variant: str
    reference: str
    measure: str
    """Key of `standings.METRICS`."""
    more: bool
    """Whether the variant is said to have more of it than the reference, or less."""
    margin: float = 0.0
    """By how much it may fall short and still be as good: above 0 for claims of being no worse."""


CLAIMS = (
    Claim("BSD saturates less than SDS at high guidance", "Huang et al. 2024", "bsd-high", "sds-high", "saturation",
          False),
    Claim("NFSD saturates less than SDS at high guidance", "Katzir et al. 2023", "nfsd-high", "sds-high",
          "saturation", False),
    Claim("ESD has a lower Janus rate than VSD where the prior is not told the camera", "Wang et al. 2024",
          "esd-blind", "vsd-blind", "janus", False),
    Claim("VSD keeps more variance from seed to seed than SDS", "Wang et al. 2023", "vsd", "sds", "variance", True),
    Claim("ISM is sharper than SDS", "Liang et al. 2023", "ism", "sds", "sharpness", True),
    Claim("TSM is sharper than SDS", "Miao et al. 2024", "tsm", "sds", "sharpness", True),
    Claim("ASD is judged no worse than VSD, by more than 0.1", "Ma et al. 2024", "asd", "vsd", "probability", True,
          margin=0.1),
    Claim("ASD takes less time for a step than VSD", "Ma et al. 2024", "asd", "vsd", "seconds_per_step", False),
)  # fmt: skip

Change = Callable[[RunConfig], RunConfig]
VARIANTS: dict[str, tuple[str, Change]] = {
    "sds": ("sds", lambda run: run),
    "vsd": ("vsd", lambda run: run),
    "asd": ("asd", lambda run: run),
    "ism": ("ism", lambda run: run),
    "tsm": ("tsm", lambda run: run),
    "sds-high": ("sds", lambda run: replace(run, objective=SDS(guidance_scale=HIGH))),
    "bsd-high": ("bsd", lambda run: replace(run, objective=BSD(text_weight=HIGH))),
    "nfsd-high": ("nfsd", lambda run: replace(run, objective=NFSD(guidance_scale=HIGH))),
    "vsd-blind": ("vsd", lambda run: replace(run, view_conditioning="none")),
    "esd-blind": ("esd", lambda run: replace(run, view_conditioning="none")),
}
"""Name: the objective whose tuned recipe it starts from, and what is changed."""
RECIPE = ("objective", "timesteps", "clipping", "critic", "scene")
"""What a variant is made of."""


@dataclass(frozen=True)
class Finding:
    """What became of a claim."""

    verdict: Verdict
    prompts: int
    of_variant: float | None
    """Mean of the measure."""
    of_reference: float | None
    difference: float | None
    """Variant minus reference, mean over prompts."""
    low: float | None
    high: float | None
    """The 95 % interval of the difference."""


def contestant(variant: str, prompt: str, seed: int, prior: str) -> Entry:
    """A variant's run of the preset `draft`."""
    objective, change = VARIANTS[variant]
    run = preset("draft").run(prompt, objective, is_mini(prior))
    return Entry(variant, replace(change(run), prior=prior, seed=seed, device="cpu"))


def judged(claim: Claim, differences: Sequence[float]) -> tuple[Verdict, float, float, float]:
    """Verdict, mean and interval of one difference for each prompt."""
    from scipy.stats import t

    mean = statistics.fmean(differences)
    reach = float(t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    sign = 1 if claim.more else -1
    worst, best = sign * mean - reach, sign * mean + reach
    if worst > -claim.margin:
        return "holds", mean, mean - reach, mean + reach
    return "the opposite" if best < -claim.margin else "undecided", mean, mean - reach, mean + reach


def found(claim: Claim, out: Path, rows: Sequence[Row]) -> Finding:
    """What the runs say of a claim; runs of which the other side is missing do not count."""
    pairs = [
        pair
        for prompt in dict.fromkeys(row["prompt"] for row in rows)
        if (pair := _pair(claim, out, [row for row in rows if row["prompt"] == prompt])) is not None
    ]
    if len(pairs) < ENOUGH:
        return Finding("too few runs", len(pairs), None, None, None, None, None)
    verdict, mean, low, high = judged(claim, [variant - reference for variant, reference in pairs])
    first, second = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    return Finding(verdict, len(pairs), first, second, mean, low, high)


def _pair(claim: Claim, out: Path, rows: Sequence[Row]) -> tuple[float, float] | None:
    """The measure of both sides for one prompt, over the seeds that both have; None where there are none."""
    sides = [
        {row["seed"]: row for row in rows if row["objective"] == name and row["trouble"] is None}
        for name in (claim.variant, claim.reference)
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        return None
    means = [
        summarize(out, [side[seed] for seed in shared])[name][claim.measure].mean
        for name, side in zip((claim.variant, claim.reference), sides, strict=True)
    ]
    first, second = means
    return None if first is None or second is None else (first, second)


def run_all(given: argparse.Namespace, prior: Prior, console: Console) -> list[Row]:
    """Every run that is done already or fits into the hours; seed after seed, so that what there is stays balanced."""
    over, stop, rows = time.monotonic() + 3600 * given.hours, StopSignal(), []
    wanted = [
        (prompt, contestant(variant, prompt, seed, given.prior))
        for seed in range(given.seeds)
        for prompt in given.prompts
        for variant in VARIANTS
    ]
    with handle_signals(stop):
        for number, (prompt, entry) in enumerate(wanted):
            runs = given.out / prompt.replace(" ", "-")
            row = finished(entry, runs)
            if row is not None and row["steps"] != given.steps and row["trouble"] is None:
                row = None
            if row is None and not stop.requested and time.monotonic() < over:
                row = run_entry(entry, prior, Budget("steps", given.steps), runs, console, stop)
                console.log(f"{number + 1}/{len(wanted)} {prompt}, {entry.told}")
            if row is not None:
                rows.append(row)
    return rows


def report(rows: Sequence[Row], given: argparse.Namespace) -> dict[str, Any]:
    """Everything as plain data."""
    findings = [{**asdict(claim), **asdict(found(claim, given.out, rows))} for claim in CLAIMS]
    lean = [{key: value for key, value in row.items() if key not in ("asked", "folder", "size")} for row in rows]
    recipes = {row["objective"]: recipe_of(row) for row in sorted(rows, key=lambda row: str(row["objective"]))}
    about = {"steps": given.steps, "seeds": given.seeds, "prompts": list(given.prompts), "prior": given.prior}
    return {
        **about,
        "high_guidance": HIGH,
        "versions": versions(),
        "claims": findings,
        "recipes": recipes,
        "runs": lean,
    }


def recipe_of(row: Row) -> dict[str, Any]:
    """The values a run was made with."""
    asked = yaml.safe_load(row["asked"])
    return {part: asked[part] for part in RECIPE}


def told(data: dict[str, Any]) -> str:
    """The page docs/claims.md."""
    patterns = {measure.key: measure.pattern.replace(":.0%", ":.2f") for measure in METRICS}
    possible = len(VARIANTS) * len(data["prompts"]) * data["seeds"]
    lines = [
        "# Claims of the papers, tried in miniature",
        "",
        f"{len(data['runs'])} of {possible} runs of {data['steps']} steps: {len(data['prompts'])} prompts with "
        f"{data['seeds']} seeds on the prior `{data['prior']}`. Written by `python benchmarks/claims.py`, whether a "
        "claim holds or not; all numbers are in [claims.json](claims.json).",
        "",
        "A small prior of 96 x 96 pictures that is told the camera is not the model the papers used: what holds "
        "there need not hold here, and the other way round. What is hardly recognised, by the second table, is no "
        "asset, and its looks decide nothing.",
        "",
        "| claim | measure | variant | reference | difference (95 %) | prompts | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["claims"]:
        pattern = patterns[row["measure"]]
        keys = ("of_variant", "of_reference", "difference", "low", "high")
        one, other, apart, low, high = ("" if row[key] is None else pattern.format(row[key]) for key in keys)
        interval = f"{apart} ({low} to {high})" if apart else "–"
        lines.append(
            f"| {row['text']} ({row['source']}) | {row['measure']} | {row['variant']} {one} "
            f"| {row['reference']} {other} | {interval} | {row['prompts']} | **{row['verdict']}** |"
        )
    return "\n".join([*lines, "", *_variants(data), "", *_method(data), ""])


def _variants(data: dict[str, Any]) -> list[str]:
    """What the variants made: a claim says little of one that makes no asset."""
    lines = ["| variant | recognised | views of 8 | saturation | sharpness | ms a step |", "|---|---|---|---|---|---|"]
    for name in VARIANTS:
        rows = [row for row in data["runs"] if row["objective"] == name and row["trouble"] is None]
        if not rows:
            continue
        views = [row["judge"]["recognised"] for row in rows]
        means = [statistics.fmean(row[key] for row in rows) for key in ("saturation", "sharpness", "seconds_per_step")]
        lines.append(
            f"| {name} | {sum(count >= RECOGNISED for count in views)} of {len(rows)} | {statistics.fmean(views):.1f} "
            f"| {means[0]:.2f} | {means[1]:.4f} | {1000 * means[2]:.0f} |"
        )
    return lines


def _method(data: dict[str, Any]) -> list[str]:
    """How it was done, and what each measure is."""
    used = {claim.measure for claim in CLAIMS}
    lines = [
        "## How",
        "",
        f"Prompts: {', '.join(data['prompts'])}. Every variant is the preset `draft` with the objective's tuned "
        "values as they were when the runs were made, which claims.json gives; `-high` has a guidance of "
        f"{data['high_guidance']:g} and the objective's published form, and `-blind` "
        "does not tell the prior the camera (`view_conditioning: none`). A difference is taken between runs of the "
        "same prompt and seed and averaged for each prompt; the interval is Student's t over the prompts. A claim "
        "holds where the whole interval lies on its side, for a claim of being no worse, above minus its margin.",
        "",
    ]
    return lines + [f"- **{measure.key}**: {measure.meaning}" for measure in METRICS if measure.key in used]


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--hours", type=float, default=6.0, help="no run is started after this (default: 6)")
    parser.add_argument("--steps", type=int, default=400, help="of every run (default: 400)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, metavar="PROMPT")
    parser.add_argument("--prior", default=MINI)
    return parser


def main(words: list[str] | None = None) -> None:
    given = flags().parse_args(words)
    console = Console()
    rows = run_all(given, load_prior(given.prior, torch.device("cpu")), console)
    data = report(rows, given)
    write_bytes(given.docs / "claims.json", (json.dumps(data, indent=1) + "\n").encode())
    write_bytes(given.docs / "claims.md", told(data).encode())
    for row in data["claims"]:
        console.log(f"{row['verdict']:13}{row['text']}")


if __name__ == "__main__":
    main()
