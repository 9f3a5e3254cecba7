"""The pictures the prior and its judge learn from, one file per object, written once by `sds3d prior corpus`.

A file holds what `Drawing` holds for two sets of cameras: `prior` views on the sphere that runs use, and `judge`
views taken nearer, farther, tilted and through other lenses, so that the judge never sees a picture of the prior's.
Light, background and colour are added when the pictures are used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from renderers.cameras import FOV, Cameras, look_at_origin
from sds3d.mini_training.catalogue import Object, models, objects
from sds3d.mini_training.colors import brightness, dominant
from sds3d.mini_training.obj_loader import MaterialMesh, load
from sds3d.mini_training.opengl_renderer import OffscreenRenderer

_MATERIALS = {
    "wood": r"wood|oak|pine|beech|madera|bois|teak|acajou|walnut",
    "leather": r"leather|cuir",
    "metal": r"metal|steel|chrome|iron|alu|inox|brass|gold",
    "plastic": r"plastic|pvc",
    "glass": r"glass|verre|window",
    "fabric": r"fabric|cloth|tissu|textile|cotton|cushion",
    "stone": r"stone|rock|marble|granit|concrete",
    "rubber": r"rubber|tire|tyre|pneu",
}


@dataclass(frozen=True)
class Corpus:
    """What to draw."""

    size: int = 96
    """Height and width of the prior's pictures, pixels."""
    views: int = 192
    """Pictures of each object for the prior."""
    judge_size: int = 64
    """Height and width of the judge's pictures, pixels."""
    judge_views: int = 96
    """Pictures of each object for the judge."""
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """What is known of one object beside its pictures."""

    name: str
    synonyms: list[str]
    tintable: bool
    wave: int
    colours: list[str]
    materials: list[str]
    brightness: float
    """See `colours.brightness`."""
    title: str
    creator: str
    licence: str


def draw(furniture: Path, out: Path, knobs: Corpus, progress: Callable[[str], None]) -> list[Entry]:
    """Draws every object that `out` does not hold yet and writes `out/entries.json`.

    Raises:
        FileNotFoundError: the models are not there.
    """
    source = models(furniture)
    out.mkdir(parents=True, exist_ok=True)
    drawers = OffscreenRenderer(knobs.size), OffscreenRenderer(knobs.judge_size)
    entries = []
    for number, thing in enumerate(objects()):
        rng = torch.Generator().manual_seed(knobs.seed * 100_003 + number)
        sets = prior_cameras(knobs, rng), judge_cameras(knobs, rng)
        model, parts = source[thing.name], load(source[thing.name])
        target = file_of(out, thing.name)
        if not target.exists():
            drawn = [asdict(drawer(parts, cameras)) for drawer, cameras in zip(drawers, sets, strict=True)]
            arrays = {
                f"{kind}_{key}": value
                for kind, d in zip(("prior", "judge"), drawn, strict=True)
                for key, value in d.items()
            }
            for kind, cameras in zip(("prior", "judge"), sets, strict=True):
                arrays[f"{kind}_angles"] = torch.stack([cameras.azimuth, cameras.elevation], -1).numpy()
            partial = target.with_suffix(".partial.npz")
            np.savez(partial, **arrays)
            partial.replace(target)
        with np.load(target) as file:
            albedo = file["prior_albedo"]
        entries.append(_entry(thing, parts, albedo, model.title, model.creator, model.licence))
        progress(f"{number + 1}/{len(objects())} {thing.name}")
    (out / "entries.json").write_text(json.dumps([asdict(entry) for entry in entries], indent=1))
    return entries


def read_entries(corpus: Path) -> list[Entry]:
    """The entries of a corpus on disk.

    Raises:
        FileNotFoundError: there is none.
    """
    file = corpus / "entries.json"
    if not file.exists():
        raise FileNotFoundError(f"no corpus in {corpus}; draw one with: sds3d prior corpus FURNITURE --out {corpus}")
    return [Entry(**row) for row in json.loads(file.read_text())]


def file_of(corpus: Path, name: str) -> Path:
    """The file that holds an object's pictures."""
    return corpus / (re.sub(r"[^a-z0-9]+", "-", name) + ".npz")


def prior_cameras(knobs: Corpus, rng: torch.Generator) -> Cameras:
    """Azimuths evenly spread with jitter, elevations from -20 to 70 degrees, denser between -10 and 40."""
    azimuth = (torch.arange(knobs.views) + torch.rand(knobs.views, generator=rng)) * (2 * math.pi / knobs.views)
    order = torch.randperm(knobs.views, generator=rng)
    place = (torch.arange(knobs.views)[order] + torch.rand(knobs.views, generator=rng)) / knobs.views
    knots = torch.tensor([-20.0, -10.0, 40.0, 70.0])
    shares = torch.tensor([0.0, 0.1, 0.8, 1.0])
    part = torch.bucketize(place, shares[1:-1])
    slope = (knots[part + 1] - knots[part]) / (shares[part + 1] - shares[part])
    return look_at_origin(azimuth, torch.deg2rad(knots[part] + slope * (place - shares[part])), knobs.size)


def judge_cameras(knobs: Corpus, rng: torch.Generator) -> Cameras:
    """Other distances (object from three quarters to the whole of the picture), lenses, tilts; -15 to 60 degrees up."""
    count = knobs.judge_views

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=rng)

    azimuth = (torch.arange(count) + torch.rand(count, generator=rng)) * (2 * math.pi / count)
    elevation = torch.deg2rad(between(-15.0, 60.0))
    poses = look_at_origin(azimuth, elevation, knobs.judge_size).c2w
    fov = between(0.7, 1.3) * FOV
    distance = between(0.97, 1.3) / torch.sin(fov / 2)
    roll = torch.deg2rad(between(-8.0, 8.0))
    turn = torch.eye(4).repeat(count, 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = torch.cos(roll)
    turn[:, 1, 0] = torch.sin(roll)
    turn[:, 0, 1] = -torch.sin(roll)
    poses = poses @ turn
    poses[:, :3, 3] *= (distance / torch.linalg.vector_norm(poses[:, :3, 3], dim=-1))[:, None]
    return Cameras(poses, fov, knobs.judge_size, knobs.judge_size)


def _entry(
    thing: Object, parts: list[MaterialMesh], albedo: np.ndarray, title: str, creator: str, licence: str
) -> Entry:
    return Entry(
        name=thing.name,
        synonyms=list(thing.synonyms),
        tintable=thing.tintable,
        wave=thing.wave,
        colours=dominant(albedo),
        materials=materials_of(parts),
        brightness=brightness(albedo),
        title=title,
        creator=creator,
        licence=licence,
    )


def materials_of(parts: list[MaterialMesh]) -> list[str]:
    """The materials that a model's files name."""
    words = " ".join(part.material.lower() for part in parts)
    return [name for name, pattern in _MATERIALS.items() if re.search(pattern, words)]
