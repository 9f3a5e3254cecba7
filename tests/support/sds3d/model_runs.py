"""Runs on tiny models of others, and what is said where one does not open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.registry import OBJECTIVES
from configs.run import Region, RunConfig
from guidance.critics.lora import CriticConfig
from guidance.priors.diffusers.options import PriorOptions
from renderers.splats.config import SplatConfig
from sds3d.models.loading import load_prior
from sds3d.runs.result import Result
from tests.support.guidance.tiny_models import build

CPU = torch.device("cpu")
SMALL = PriorOptions(image_size=16)
GUIDING = ("guidance_scale", "inversion_guidance_scale", "guidance_scale_min", "guidance_scale_max")
"""Fields by which objectives guide."""
Folder = Callable[[str], Path]
Captured = pytest.CaptureFixture[str]


def asked(folder: Path, kind: str, objective: str = "sds", steps: int = 2) -> RunConfig:
    rule = OBJECTIVES[objective]()
    if kind == "flux":
        rule = replace(rule, **{name: 1.0 for name in GUIDING if hasattr(rule, name)})
    parts = (Region("a mug"), Region("a horse", (0.0, 0.5, 0.0))) if rule.needs_regions else ()
    return RunConfig(
        "a teddy bear",
        prior=str(folder),
        prior_options=SMALL,
        objective=rule,
        scene=SplatConfig(init_count=60, cap_max=80),
        critic=CriticConfig(rank=1, num_prior_samples=2, num_stages=1, stage_steps=1),
        regions=parts,
        source_run="before" if rule.needs_source else "",
        steps=steps,
        batch_size=2,
        device="cpu",
    )


def source(config: RunConfig) -> Result | None:
    if not config.source_run:
        return None
    scene = config.scene.build(CPU, torch.Generator().manual_seed(0))
    return Result(scene, replace(config, prompt="a horse", source_run=""), 1)


def one_line(name: str, extras: PriorOptions = SMALL) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        load_prior(name, CPU, extras)
    line = str(refused.value)
    assert "\n" not in line
    return line


def lora_of(kind: str, file: Path) -> None:
    """Random additions to every attention of a family's network, in the layout of diffusers."""
    tensors, rng, pipe = {}, torch.Generator().manual_seed(1), build(kind)
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    for name, layer in getattr(pipe, part).named_modules():
        if name.endswith(("to_q", "to_v")):
            for letter, shape in (("A", (2, layer.in_features)), ("B", (layer.out_features, 2))):
                tensors[f"{part}.{name}.lora_{letter}.weight"] = torch.randn(shape, generator=rng)
    save_file(tensors, file)
