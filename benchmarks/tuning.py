"""Searches the values that suit the embedded prior, objective by objective: what configs/tuned.py is chosen by.

    python benchmarks/tuning.py [--objectives sds,vsd] [--steps 100] [--hours 3] [--out runs/tuning]

The values of configs/tuned.py and some around them race over the prompts of the gallery, seed 0: after 2 prompts the
best two go on, with nothing changed and with all together that was better than that; after 4 the best two, and after 10
there is a winner; `--prompts 4` ends it there. Runs that are done are kept when the command is run again. What there
is then goes to docs/tuning.md and .json.

A run's mark is the judge's mean probability of what was asked, over eight views, less how far its saturation and its
contrast are from those of pictures that the prior draws by itself, without guidance: assets are to look like what the
prior means, neither paler nor more garish. Objectives that edit start from the assets that `benchmarks/objectives.py`
made with sds; `--sources` says where these are.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gallery import PROMPTS
from objectives import DOCS, contestant
from torch.nn import functional

from configs.presets import PRESETS
from configs.recipe import Recipe
from configs.tuned import TUNED
from guidance.balanced import BSD
from guidance.csd import CSD
from guidance.embedded import EmbeddedPrior
from guidance.flow_reading import time_of
from guidance.objective import Objective
from guidance.random_scale import PGSB
from guidance.sampling import sample
from guidance.times import Falling, Linear, Times
from sds3d.atomic import write_bytes
from sds3d.console import Console
from sds3d.distill import Run, Unhealthy
from sds3d.generate import Stop, device_of, listening, source_of
from sds3d.judging import ELEVATION, VIEWS, verdict
from sds3d.measures import SIZE, contrast, pictures, saturation
from sds3d.priors import EMBEDDED, FLOW, open_prior
from sds3d.provenance import versions

ROUNDS = ((2, 2), (4, 2), (10, 1))
"""After so many prompts, so many are left."""
NOISES = 3
"""Pictures that the prior draws of each of the eight views."""
AS_IS = "as it is"
Values = Mapping[str, Any]
"""What is changed in a recipe, by the path of the knob, such as `objective.scale`."""

_OWN: dict[str, tuple[Values, ...]] = {
    "asd": ({"objective.plus_ratio": 0.05}, {"objective.plus_ratio": 0.2}),
    "bsd": ({"objective": BSD(setting="released")},),
    "csd": ({"objective": CSD()},),
    "csm": ({"objective.delta": 0.15}, {"objective.delta": 0.04}),
    "disback": ({"objective.until": 0.2}, {"critic.rate": 3e-3}),
    "esd": ({"objective.entropy": 0.25}, {"critic.rate": 3e-3}),
    "f-vsd": ({"objective.divergence": "reverse-kl"}, {"critic.rate": 3e-3}),
    "ism": ({"objective.delta": 0.1}, {"objective.delta": 0.3}),
    "nfsd": ({"objective.switch": 0.1}, {"objective.switch": 0.4}),
    "pg-sb": ({"critic.rate": 3e-3},),
    "rfds-rev": ({"objective.correction": "whole"},),
    "sdi": ({"objective.eta": 0.0}, {"objective.inversion_scale": -2.0}),
    "sds": ({"objective.rescale": 0.0}, {"objective.rescale": 0.8}),
    "tsm": ({"objective.gamma": 0.6}, {"objective.delta": 0.1}),
    "vsd": ({"critic.rate": 3e-3},),
}
"""What is tried beside guidance, times and rates."""


def at_flow(low: float, high: float) -> tuple[float, float]:
    """Times of the embedded prior's schedule as those of a flow-matching one, at the same ratios of noise to signal."""
    prior = open_prior(EMBEDDED, torch.device("cpu"))
    first, last = time_of(open_prior(FLOW, torch.device("cpu")), *prior.levels(torch.tensor([low, high]))).tolist()
    return round(first, 2), round(last, 2)


def times_of(name: str) -> tuple[Times, ...]:
    """Noise that falls earlier, as by default, and later."""
    pairs = (((0.3, 0.9), (0.02, 0.2)), ((0.5, 0.98), (0.02, 0.4)), ((0.5, 0.98), (0.2, 0.6)))
    match TUNED[name].times:
        case Linear():
            return Linear(0.8, 0.02), Linear(0.9, 0.1), Linear(0.98, 0.25)
        case _ if name.startswith("rfds"):
            return tuple(Falling(at_flow(*first), at_flow(*last)) for first, last in pairs)
        case _:
            return tuple(Falling(first, last) for first, last in pairs)


def around(name: str) -> list[Values]:
    """What is tried around an objective's values, one knob at a time."""
    return [values for values in _tried(name) if changed(TUNED[name], values) != TUNED[name]]


def _tried(name: str) -> Iterator[Values]:
    recipe = TUNED[name]
    for factor in (0.5, 2.0):
        match recipe.objective:
            case PGSB() as old:
                scales = {"lowest": old.lowest * factor, "highest": old.highest * factor}
                yield {"objective": replace(old, **scales)}
            case BSD() as old:
                assert old.strength is not None
                yield {"objective.strength": old.strength * factor}
            case old:
                yield {"objective.scale": getattr(old, "scale") * factor}  # noqa: B009  every other one has it
        yield {"rates": recipe.rates * factor}
    for times in times_of(name):
        yield {"times": times}
    if hasattr(recipe.objective, "weighting"):
        yield from ({"objective.weighting": weighting} for weighting in ("sds", "reconstruction"))
    yield from _OWN.get(name, ())


def changed(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with these values."""
    for path, value in values.items():
        part, _, knob = path.partition(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{knob: value}) if knob else value})
    return recipe


def label(values: Values) -> str:
    """Them as text, such as `scale 1.0, rates 2.0`."""
    return ", ".join(_told(path, value) for path, value in values.items()) or AS_IS


def _told(path: str, value: Any) -> str:
    match value:
        case Falling():
            (a, b), (c, d) = value.first, value.last
            return f"times {a}-{b} to {c}-{d}"
        case Linear():
            return f"times {value.high} to {value.low}"
        case Objective():
            return str(value)
        case _:
            return f"{path.removeprefix('objective.')} {value}"


@dataclass(frozen=True)
class Looks:
    """How the prior draws a prompt by itself."""

    saturation: float
    contrast: float


@torch.no_grad()
def own_looks(prior: EmbeddedPrior, prompt: str) -> Looks:
    """Of its pictures without guidance, inside the outline that its sketch has."""
    azimuth = torch.arange(VIEWS) * (2 * math.pi / VIEWS)
    camera = torch.stack([azimuth, torch.full((VIEWS,), ELEVATION)], -1)
    text = replace(prior.read([prompt] * VIEWS), camera=camera)
    expected = prior.network.expect(text.tokens, text.mask, camera, torch.ones(VIEWS, dtype=torch.bool))
    opacity = functional.pixel_shuffle((expected[:, -4:] + 1) / 2, 2)
    shape, rng = prior.encode(torch.zeros(1, 3, prior.picture_size, prior.picture_size)).shape, torch.Generator()
    drawn = [
        sample(prior, torch.randn(VIEWS, *shape[1:], generator=rng.manual_seed(seed)), text, text, 1.0, 20)
        for seed in range(NOISES)
    ]
    big = [functional.interpolate(picture, size=SIZE, mode="bilinear") for picture in (torch.cat(drawn), opacity)]
    views = torch.cat([big[0], big[1].clamp(0, 1).repeat(NOISES, 1, 1, 1)], 1).permute(0, 2, 3, 1)
    return Looks(saturation(views), contrast(views))


class Search:
    """The race of one objective, with what is known of it on the disk."""

    def __init__(self, name: str, given: argparse.Namespace, looks: dict[str, Looks], stop: Stop) -> None:
        self.name, self.given, self.looks, self.stop = name, given, looks, stop
        self.file: Path = given.out / f"{name}.json"
        kept = json.loads(self.file.read_text()) if self.file.is_file() else {}
        # Around other values, or with other steps, it is another race.
        same = kept.get("from") == str(TUNED[name]) and kept.get("steps") == given.steps
        self.rows: list[dict[str, Any]] = kept["runs"] if same else []
        self.prior = open_prior(FLOW if name.startswith("rfds") else EMBEDDED, torch.device("cpu"))

    def race(self) -> None:
        """Runs all rounds, or those that there is time for."""
        left = [{}, *around(self.name)]
        for prompts, best in ROUNDS:
            if prompts > self.given.prompts:
                return
            self.measure(left, prompts)
            if self.stop.wanted:
                return
            order = sorted(left, key=lambda values: -self.mean(values, prompts))
            left = order[:best]
            if prompts == ROUNDS[0][0]:
                left += [values for values in ({}, self.together(order)) if values not in left]

    def together(self, order: Sequence[Values]) -> Values:
        """All that was better than nothing changed; of several values of one knob the best."""
        better: dict[str, Any] = {}
        for values in order[: order.index({})]:
            for path, value in values.items():
                if not any(
                    f"{known}.".startswith(f"{path}.") or f"{path}.".startswith(f"{known}.") for known in better
                ):
                    better[path] = value
        return better

    def measure(self, left: Sequence[Values], prompts: int) -> None:
        """Does the runs of the first prompts that are not done yet."""
        for place, prompt in enumerate(PROMPTS[:prompts]):
            for values in left:
                known = any(row["values"] == label(values) and row["prompt"] == prompt for row in self.rows)
                if not known and not self.stop.wanted:
                    self.rows.append(self.run(values, prompt, PROMPTS[place - 1]))
                    kept = {"from": str(TUNED[self.name]), "steps": self.given.steps, "runs": self.rows}
                    write_bytes(self.file, (json.dumps(kept, indent=1) + "\n").encode())

    def run(self, values: Values, prompt: str, before: str) -> dict[str, Any]:
        """One run and its mark; a scene that goes wrong beyond repair has -1."""
        began = time.monotonic()
        asked = contestant(self.name, prompt, before, self.given.sources).config
        config = changed(TUNED[self.name], values).laid_over(replace(asked, scene=PRESETS["draft"].scene))
        config = replace(config, steps=self.given.steps)
        row: dict[str, Any] = {"values": label(values), "prompt": prompt, "mark": -1.0}
        run = Run(config, self.prior, device_of(config), source_of(config, Console()))
        try:
            for _ in run.steps():
                pass
        except Unhealthy as error:
            return {**row, "trouble": str(error)}
        judged, views, looks = verdict(run.scene, prompt), pictures(run.scene), self.looks[prompt]
        assert judged is not None, "the judge knows all prompts of the gallery"
        off = {
            "saturation": round(saturation(views) - looks.saturation, 4),
            "contrast": round(contrast(views) - looks.contrast, 4),
        }
        mark = judged["probability"] - sum(abs(value) for value in off.values())
        found = {"mark": round(mark, 4), "probability": judged["probability"], "recognised": judged["recognised"]}
        print(f"{self.name}, {label(values)}, {prompt}: {found} {off}", flush=True)
        return {**row, **found, "off": off, "seconds": round(time.monotonic() - began, 1)}

    def mean(self, values: Values, prompts: int) -> float:
        return statistics.mean(
            row["mark"] for row in self.rows if row["values"] == label(values) and row["prompt"] in PROMPTS[:prompts]
        )


def standing(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What the runs of an objective say: the values by how far they came, with the means of their runs."""
    table, rows = [], kept["runs"]
    for values in dict.fromkeys(row["values"] for row in rows):
        mine = [row for row in rows if row["values"] == values]
        whole = [row for row in mine if "trouble" not in row]
        before = {row["prompt"]: row["mark"] for row in rows if row["values"] == AS_IS}
        gains = [row["mark"] - before[row["prompt"]] for row in mine if row["prompt"] in before]
        table.append(
            {
                "values": values,
                "prompts": len(mine),
                "mark": round(statistics.mean(row["mark"] for row in mine), 4),
                "gain": round(statistics.mean(gains), 4),
                "gain_prompts": len(gains),
                **{
                    key: round(statistics.mean(row[key] for row in whole), 4) if whole else None
                    for key in ("probability", "recognised")
                },
                **{
                    f"off_{key}": round(statistics.mean(row["off"][key] for row in whole), 4) if whole else None
                    for key in ("saturation", "contrast")
                },
            }
        )
    table.sort(key=lambda row: (-row["prompts"], -row["mark"]))
    return {"from": kept["from"], "steps": kept["steps"], "values": table, "runs": rows}


def told(data: Mapping[str, Any]) -> str:
    """The page docs/tuning.md."""
    paragraphs = (__doc__ or "").split("\n\n")
    lines = ["# How the values for the embedded prior were found", "", paragraphs[2].replace("\n", " "), ""]
    lines += [paragraphs[3].replace("\n", " ").strip(), ""]
    lines += [
        "`Gain` is the mark's difference from the values as they were, mean of the prompts that both ran; marks of "
        "different numbers of prompts do not compare. f-vsd keeps its divergence, for with reverse-kl it is vsd. All "
        "values chosen were then run on twelve prompts: [objectives.md](objectives.md). Written by "
        "`python benchmarks/tuning.py`; every value that was tried and every run is in [tuning.json](tuning.json).",
        "",
        "| objective | tried | prompts | best | mark | gain | probability | saturation off | contrast off |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(data["objectives"].items()):
        best = found["values"][0]
        figures = f"{best['mark']:.3f} | {best['gain']:+.3f} | {best['probability']:.2f}"
        off = f"{best['off_saturation']:+.3f} | {best['off_contrast']:+.3f}"
        lines.append(f"| {name} | {len(found['values'])} | {best['prompts']} | {best['values']} | {figures} | {off} |")
    return "\n".join([*lines, ""])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--sources", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--hours", type=float, default=3.0, help="no objective is begun after this (default: 3)")
    parser.add_argument("--steps", type=int, default=100, help="of every run (default: 100)")
    parser.add_argument("--prompts", type=int, default=10, help="no round goes beyond so many (default: 10)")
    parser.add_argument("--objectives", type=lambda names: names.split(","), default=list(TUNED))
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    over, stop = time.monotonic() + 3600 * given.hours, Stop()
    prior = EmbeddedPrior.load()
    looks = {prompt: own_looks(prior, prompt) for prompt in PROMPTS[: ROUNDS[-1][0]]}
    with listening(stop):
        for name in given.objectives:
            if not stop.wanted and time.monotonic() < over:
                Search(name, given, looks, stop).race()
    files = [given.out / f"{name}.json" for name in TUNED if (given.out / f"{name}.json").is_file()]
    if files:
        found = {file.stem: standing(json.loads(file.read_text())) for file in files}
        data = {"versions": versions(), "objectives": found}
        write_bytes(given.docs / "tuning.json", (json.dumps(data, indent=1) + "\n").encode())
        write_bytes(given.docs / "tuning.md", told(data).encode())


if __name__ == "__main__":
    main()
