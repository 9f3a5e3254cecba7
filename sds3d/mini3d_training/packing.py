"""From fitted splats to the folder of a prior: rounded models, what is known of them, what pictures are like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini3d.prior import MIN_VARIANCE, ImageStatistics, Mini3DPrior, patch_opacity
from guidance.priors.mini3d.splat_models import PackedSplats, SplatModelInfo, cat_packed, pack_splats
from guidance.priors.mini3d.splat_rendering import render_splats
from guidance.priors.weights import read_tensors
from renderers.cameras import look_at_origin
from sds3d.mini3d_training.splat_fitting import splats_of, true_views
from sds3d.mini_training.captions import vocabulary
from sds3d.mini_training.catalogue import models, objects
from sds3d.mini_training.colors import COLORS, brightness, dominant
from sds3d.mini_training.corpus import Entry, materials_of
from sds3d.mini_training.dataset import backgrounds
from sds3d.mini_training.model_card import SOURCE, notice
from sds3d.mini_training.obj_loader import load
from sds3d.mini_training.opengl_renderer import OffscreenRenderer


@dataclass(frozen=True)
class Pack:
    """How to pack."""

    patch: int = 8
    grid: int = 16
    """Pictures are patch * grid pixels."""
    views: int = 12
    """Pictures of each model to learn what pictures are like from."""
    compared: int = 24
    """Models whose splats are compared with their true pictures."""
    seed: int = 0


def pack(furniture: Path, fits: Path, target: Path, knobs: Pack, progress: Callable[[str], None]) -> Mini3DPrior:
    """Writes all fitted objects of `objects.csv` as a prior.

    Raises:
        FileNotFoundError: the models are not there, or none was fitted.
    """
    fitted = [thing for thing in objects() if splats_of(fits, thing.name).exists()]
    if not fitted:
        raise FileNotFoundError(f"no fitted object in {fits}; fit them with: sds3d prior fit-splats FURNITURE")
    source, rng = models(furniture), torch.Generator().manual_seed(knobs.seed)
    size, every, entries, seen = knobs.patch * knobs.grid, [], [], []
    drawer, rests, compared = OffscreenRenderer(size), [], []
    gap = max(1, len(fitted) // knobs.compared)
    for number, thing in enumerate(fitted):
        parts, model = load(source[thing.name]), source[thing.name]
        bare = _rounded(splats_of(fits, thing.name), SplatModelInfo(thing.name))
        camera = _cameras(knobs.views, rng)
        rgba = render_splats([bare.unpack(0)] * knobs.views, camera, size)
        flat = (rgba.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        entry = Entry(
            thing.name,
            list(thing.synonyms),
            thing.tintable,
            thing.wave,
            dominant(flat),
            materials_of(parts),
            round(brightness(flat), 4),
            model.title,
            model.creator,
            model.licence,
        )
        row = SplatModelInfo(
            entry.name,
            tuple(entry.colours),
            tuple(entry.materials),
            entry.tintable,
            entry.brightness,
            len(bare.positions),
            entry.title,
            entry.creator,
            entry.licence,
        )
        every.append(PackedSplats((row,), bare.positions, bare.scales_quats, bare.rgba))
        entries.append(entry)
        seen.append(rgba)
        if number % gap == 0:
            truth = true_views(parts, drawer, look_at_origin(camera[:, 0], camera[:, 1], size)).rgba
            compared.append(rgba)
            rests.append(truth.permute(0, 3, 1, 2) - rgba)
        progress(f"{number + 1}/{len(fitted)} {thing.name}")
    codec, expected = _expected(torch.cat(seen), torch.cat(rests), torch.cat(compared), knobs)
    prior = Mini3DPrior(cat_packed(every), expected, codec, vocabulary(entries))
    prior.save(target)
    (target / "NOTICE").write_text(notice(entries), encoding="utf-8")
    (target / "README.md").write_text(card(prior), encoding="utf-8")
    return prior


def _expected(rgba: Tensor, rests: Tensor, compared: Tensor, knobs: Pack) -> tuple[PatchCodec, ImageStatistics]:
    """The codec of these pictures, and their moments. True pictures have `rests` beyond those of splats, `compared`."""
    behind = torch.from_numpy(backgrounds(len(rgba), np.random.default_rng(knobs.seed)))[:, :, None, None]
    codec = PatchCodec(3 * knobs.patch**2, knobs.patch)
    codec.fit(rgba[:, :3] + (1 - rgba[:, 3:]) * behind)
    expected = ImageStatistics(3 * knobs.patch**2, knobs.patch, knobs.grid, len(COLORS))
    mean = rgba.mean(0)
    expected.picture.copy_(mean)
    expected.paints.copy_(torch.tensor(list(COLORS.values())))
    # Around the mean picture before the true background, which the mixture finds by itself.
    around = rgba[:, :3] - mean[:3] - (rgba[:, 3:] - mean[3:]) * behind
    black = codec.encode(torch.zeros_like(rgba[:1, :3]))
    expected.variance.copy_((codec.encode(around) - black).square().mean(0).clamp_min(MIN_VARIANCE))
    true = codec.encode(rests[:, :3] - 0.5 * rests[:, 3:]) - black
    # The median over models: a few that splats fit badly would make all samples noisy.
    by_model = [part.unflatten(0, (-1, knobs.views)) for part in (true.square(), patch_opacity(compared, knobs.patch))]
    square, cover = (part.mean((1, 3, 4)).clamp_min(1e-4) for part in by_model)
    expected.spread.copy_((square / cover).median(0).values)
    return codec, expected


def _cameras(count: int, rng: torch.Generator) -> Float[Tensor, "B 2"]:
    azimuth = (torch.arange(count) + torch.rand(count, generator=rng)) * (2 * torch.pi / count)
    return torch.stack([azimuth, torch.deg2rad(-10 + 60 * torch.rand(count, generator=rng))], -1)


def _rounded(file: Path, known: SplatModelInfo) -> PackedSplats:
    t = read_tensors(file)
    return pack_splats(known, t["means"], t["scales"].exp(), t["quats"], torch.sigmoid(t["opac"]), t["rgb"].clamp(0, 1))


def card(prior: Mini3DPrior) -> str:
    """The card, in the form model hubs use."""
    known = prior.packed.infos
    free = sum(row.license.startswith("CC0") for row in known)
    return (
        '---\nlicense: "apache-2.0"\npipeline_tag: "text-to-image"\ntags: ["score-distillation", "text-to-3d"]\n---\n\n'
        "# mini-3d, the embedded prior of sds3d that knows its objects in three dimensions\n\n"
        f"A denoiser of {prior.image_size} x {prior.image_size} pictures in closed form: {len(known)} models, "
        f"{known[0].num_splats} Gaussian splats each, fitted to pictures of models of {SOURCE} ({free} under CC0, "
        f"{len(known) - free} under CC BY 3.0; credits in `NOTICE`). Text, camera, or both can be left out.\n\n"
        "It has three dimensions inside. What is measured with it about geometry, sides and Janus faces does not carry "
        "over to priors that learned from pictures alone.\n\n"
        f"## Objects\n\n{', '.join(sorted(row.name for row in known))}\n"
    )
