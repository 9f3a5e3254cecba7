"""Searches the values that suit the embedded prior, objective by objective: what configs/tuned.py is chosen by.

    python benchmarks/tuning.py [--objectives sds,vsd] [--knobs lr_scale,timesteps] [--steps 100] [--out runs/tuning]

The values of configs/tuned.py and some around them race over the prompts of the gallery, seed 0: after 2 prompts the
best two go on, with nothing changed and with all together that was better than that; after 4 the best two, and after 10
there is a winner; `--prompts 4` ends it there. Runs that are done are kept when the command is run again. What there
is then goes to docs/tuning.md and .json. A hundred steps are few, and favour what is quick: whose rates are not 1 raced
again in 400, half a draft, with other rates alone (`--steps 400 --knobs lr_scale`).

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gallery import PROMPTS
from objectives import DOCS, contestant
from torch.nn import functional
from tries import AS_IS, Values, around, changed, label

from configs.presets import PRESETS
from configs.tuned import TUNED
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.sampling import sample_ddim
from sds3d.atomic_files import write_bytes
from sds3d.console import Console
from sds3d.evaluation.image_metrics import SIZE, contrast, render_views, saturation
from sds3d.evaluation.scene_evaluation import ELEVATION, VIEWS, evaluate_scene
from sds3d.models.loading import MINI, MINI_FLOW, load_prior
from sds3d.runs.provenance import versions
from sds3d.training.loop import StopSignal, device_of, handle_signals, load_source
from sds3d.training.trainer import Trainer, TrainingFailed

ROUNDS = ((2, 2), (4, 2), (10, 1))
"""After so many prompts, so many are left."""
NOISES = 3
"""Pictures that the prior draws of each of the eight views."""


@dataclass(frozen=True)
class Looks:
    """How the prior draws a prompt by itself."""

    saturation: float
    contrast: float


@torch.no_grad()
def own_looks(prior: MiniPrior, prompt: str) -> Looks:
    """Of its pictures without guidance, inside the outline that its sketch has."""
    azimuth = torch.arange(VIEWS) * (2 * math.pi / VIEWS)
    camera = torch.stack([azimuth, torch.full((VIEWS,), ELEVATION)], -1)
    text = replace(prior.encode_prompt([prompt] * VIEWS), camera=camera)
    expected = prior.network.expect(text.text_embeds, text.attention_mask, camera, torch.ones(VIEWS, dtype=torch.bool))
    opacity = functional.pixel_shuffle((expected[:, -4:] + 1) / 2, 2)
    shape, rng = prior.encode(torch.zeros(1, 3, prior.image_size, prior.image_size)).shape, torch.Generator()
    drawn = [
        sample_ddim(prior, torch.randn(VIEWS, *shape[1:], generator=rng.manual_seed(seed)), text, text, 1.0, 20)
        for seed in range(NOISES)
    ]
    big = [functional.interpolate(picture, size=SIZE, mode="bilinear") for picture in (torch.cat(drawn), opacity)]
    views = torch.cat([big[0], big[1].clamp(0, 1).repeat(NOISES, 1, 1, 1)], 1).permute(0, 2, 3, 1)
    return Looks(saturation(views), contrast(views))


class Search:
    """The race of one objective, with what is known of it on the disk."""

    def __init__(self, name: str, given: argparse.Namespace, looks: dict[str, Looks], stop: StopSignal) -> None:
        self.name, self.given, self.looks, self.stop = name, given, looks, stop
        self.file: Path = given.out / str(given.steps) / f"{name}.json"
        kept = json.loads(self.file.read_text()) if self.file.is_file() else {}
        # Around other values it is another race.
        self.rows: list[dict[str, Any]] = kept["runs"] if kept.get("from") == str(TUNED[name]) else []
        self.prior = load_prior(MINI_FLOW if name.startswith("rfds") else MINI, torch.device("cpu"))

    def race(self) -> None:
        """Runs all rounds, or those that there is time for."""
        left = [{}, *around(self.name, self.given.knobs)]
        for prompts, best in ROUNDS:
            if prompts > self.given.prompts:
                return
            self.measure(left, prompts)
            if self.stop.requested:
                return
            order = sorted(left, key=lambda values: -self.mean(values, prompts))
            left = order[:best]
            if prompts == ROUNDS[0][0]:
                left += [values for values in ({}, self.combine(order)) if values not in left]

    def combine(self, order: Sequence[Values]) -> Values:
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
                if not known and not self.stop.requested:
                    self.rows.append(self.run(values, prompt, PROMPTS[place - 1]))
                    kept = {"from": str(TUNED[self.name]), "runs": self.rows}
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(self.file, (json.dumps(kept, indent=1) + "\n").encode())

    def run(self, values: Values, prompt: str, before: str) -> dict[str, Any]:
        """One run and its mark; a scene that goes wrong beyond repair has -1."""
        began = time.monotonic()
        asked = contestant(self.name, prompt, before, self.given.sources).config
        config = changed(TUNED[self.name], values).laid_over(replace(asked, scene=PRESETS["draft"].scene))
        config = replace(config, steps=self.given.steps)
        row: dict[str, Any] = {"values": label(values), "prompt": prompt, "mark": -1.0}
        run = Trainer(config, self.prior, device_of(config), load_source(config, Console()))
        try:
            for _ in run.steps():
                pass
        except TrainingFailed as error:
            return {**row, "trouble": str(error)}
        judged, views, looks = evaluate_scene(run.scene, prompt), render_views(run.scene), self.looks[prompt]
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


def known(out: Path) -> dict[str, dict[str, Any]]:
    """How the races on the disk stand, by their steps and the objective."""
    races: dict[str, dict[str, Any]] = {}
    for file in sorted(out.glob("*/*.json"), key=lambda file: (int(file.parent.name), file.stem)):
        races.setdefault(file.parent.name, {})[file.stem] = standing(json.loads(file.read_text()))
    return races


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
                "gain": round(statistics.mean(gains), 4) if gains else None,
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
    return {"from": kept["from"], "values": table, "runs": rows}


def told(data: Mapping[str, Any]) -> str:
    """The page docs/tuning.md."""
    paragraphs = [paragraph.strip().replace("\n", " ") for paragraph in (__doc__ or "").split("\n\n")]
    lines = ["# How the values for the embedded prior were found", "", paragraphs[2], "", paragraphs[3], ""]
    lines += [
        "`Gain` is the mark's difference from the values as they were when the race began; `next` is who came second "
        "and how far behind, with the standard error of the difference. Both are means of the prompts that both ran. "
        "The longer race decides on rates; where the two are within twice the error, the lower. csm drifts on with "
        "every step, so its rate falls with their number; that of a draft rests on the two prompts of 800 steps. "
        "disback's values won an earlier race of fewer values and were run beside the last of this one. "
        "f-vsd keeps its divergence, for with reverse-kl it is vsd. "
        "The values chosen were then run on twelve prompts: "
        "[objectives.md](objectives.md). Written by `python benchmarks/tuning.py`; every value that was tried and "
        "every run is in [tuning.json](tuning.json).",
    ]
    for steps, objectives in data["races"].items():
        lines += ["", f"## {steps} steps", ""]
        lines += [
            "| objective | tried | prompts | best | mark | gain | next | probability | saturation off | contrast off |"
        ]
        lines += ["|---" * 10 + "|"]
        lines += [f"| {name} | {' | '.join(line(found))} |" for name, found in sorted(objectives.items())]
    return "\n".join([*lines, ""])


def line(found: Mapping[str, Any]) -> tuple[str, ...]:
    """An objective's row after its name."""
    best, *others = found["values"]
    looks = (f"{best['probability']:.2f}", f"{best['off_saturation']:+.3f}", f"{best['off_contrast']:+.3f}")
    gain = "" if best["gain"] is None else f"{best['gain']:+.3f}"
    figures = (f"{best['mark']:.3f}", gain, behind(found["runs"], best, others))
    return str(len(found["values"])), str(best["prompts"]), best["values"], *figures, *looks


def behind(runs: Sequence[Mapping[str, Any]], best: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """The second and how much lower its marks are."""
    if not others or others[0]["prompts"] < best["prompts"]:
        return ""
    first, second = (
        {row["prompt"]: row["mark"] for row in runs if row["values"] == found["values"]} for found in (best, others[0])
    )
    gaps = [second[prompt] - first[prompt] for prompt in first.keys() & second.keys()]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return f"{others[0]['values']}: {statistics.mean(gaps):+.3f} ± {error:.3f}"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--sources", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--hours", type=float, default=3.0, help="no objective is begun after this (default: 3)")
    parser.add_argument("--steps", type=int, default=100, help="of every run (default: 100)")
    parser.add_argument("--prompts", type=int, default=10, help="no round goes beyond so many (default: 10)")
    parser.add_argument("--objectives", type=lambda names: names.split(","), default=list(TUNED))
    parser.add_argument("--knobs", type=lambda names: names.split(","), default=[], help="changes only these")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    over, stop = time.monotonic() + 3600 * given.hours, StopSignal()
    prior = MiniPrior.load()
    looks = {prompt: own_looks(prior, prompt) for prompt in PROMPTS[: ROUNDS[-1][0]]}
    with handle_signals(stop):
        for name in given.objectives:
            if not stop.requested and time.monotonic() < over:
                Search(name, given, looks, stop).race()
    if races := known(given.out):
        data = {"versions": versions(), "races": races}
        write_bytes(given.docs / "tuning.json", (json.dumps(data, indent=1) + "\n").encode())
        write_bytes(given.docs / "tuning.md", told(data).encode())


if __name__ == "__main__":
    main()
