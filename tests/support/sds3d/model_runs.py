"""Runs on tiny models of others, and what is said where one does not open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.registry import OBJECTIVES
from configs.run import Part, RunConfig
from guidance.critics.lora import LoRA
from guidance.priors.diffusers.options import Extras
from renderers.splats.config import Splats
from sds3d.models.loading import open_prior
from sds3d.runs.result import Result
from tests.support.guidance.tiny_models import build

CPU = torch.device("cpu")
SMALL = Extras(size=16)
GUIDING = ("scale", "inversion_scale", "lowest", "highest")
"""Fields by which objectives guide."""
Folder = Callable[[str], Path]
Captured = pytest.CaptureFixture[str]


def asked(folder: Path, kind: str, objective: str = "sds", steps: int = 2) -> RunConfig:
    rule = OBJECTIVES[objective]()
    if kind == "flux":
        rule = replace(rule, **{name: 1.0 for name in GUIDING if hasattr(rule, name)})
    parts = (Part("a mug"), Part("a horse", (0.0, 0.5, 0.0))) if rule.needs_regions else ()
    return RunConfig(
        "a teddy bear",
        prior=str(folder),
        extras=SMALL,
        objective=rule,
        scene=Splats(count=60, max_count=80),
        critic=LoRA(rank=1, samples=2, stages=1, stage_steps=1),
        parts=parts,
        source="before" if rule.needs_source else "",
        steps=steps,
        views=2,
        device="cpu",
    )


def source(config: RunConfig) -> Result | None:
    if not config.source:
        return None
    scene = config.scene.build(CPU, torch.Generator().manual_seed(0))
    return Result(scene, replace(config, prompt="a horse", source=""), 1)


def one_line(name: str, extras: Extras = SMALL) -> str:
    with pytest.raises((ValueError, OSError)) as refused:
        open_prior(name, CPU, extras)
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
