"""What is left of a run whose scene is a flat picture: the picture, and how near it is to what the prior knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.toy_images import toy_image_prior
from renderers.images.scene import ImageScene
from sds3d.atomic_files import write_bytes
from sds3d.console import Console
from sds3d.formats.png import png
from sds3d.models.loading import TOY
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory


@dataclass(frozen=True)
class ModeDistance:
    """How a picture lies in the data of the exact prior."""

    nearest: str
    """The likeliest of the pictures that the text stands for."""
    distance: float
    """Root mean square distance to it, per number; samples of the data have `deviation`."""
    deviation: float


def finalize_image(made: Result, record: RunDirectory, console: Console, seconds: float) -> Path:
    """Writes picture.png, all particles side by side, and report.json; returns the picture's path."""
    scenes = [scene for scene in (made.scene, *made.other_particles) if isinstance(scene, ImageScene)]
    pixels = torch.cat([scene.pixels.detach() for scene in scenes]).cpu()
    file = record.folder / "picture.png"
    sheet = torch.cat(list(pixels.clamp(0, 1)), -1).permute(1, 2, 0)
    write_bytes(file, png((sheet * 255).round().to(torch.uint8).numpy()))
    report: dict[str, object] = {
        "prompt": made.config.prompt,
        "steps": made.step,
        "seconds": {"optimisation": round(seconds, 2)},
        "scene": made.scene.describe(),
    }
    if len(pixels) > 1:
        report["spread_of_particles"] = round(float(pixels.std(0).square().mean().sqrt()), 4)
    if made.config.prior == TOY:
        prior = toy_image_prior()
        near = [distance_to_mode(prior, picture, made.config.prompt) for picture in pixels]
        report["data"] = [vars(one) for one in near]
        for one in near:
            console.log(
                f"nearest: {one.nearest}, at a distance of {one.distance:.3f} a pixel, "
                f"where samples of the data are at {one.deviation:g}"
            )
    write_bytes(record.folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    return file


def distance_to_mode(prior: GaussianMixturePrior, picture: Float[Tensor, "C H W"], text: str) -> ModeDistance:
    """Where a picture lies among those that a text stands for. Raises ValueError for a text the prior does not know."""
    fits = prior.encode_prompt([text]).text_embeds[0, 0] > 0
    apart = (prior.means - picture).square().flatten(1).mean(1).sqrt()
    best = int(torch.where(fits, apart, torch.inf).argmin())
    # The shortest text that stands for this component alone names it.
    alone = (
        name for name, weights in prior.text_weights.items() if weights[best] > 0 and sum(w > 0 for w in weights) == 1
    )
    return ModeDistance(min(alone, key=len), round(float(apart[best]), 4), float(prior.stds[best]))
