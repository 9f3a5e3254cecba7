"""Renders can be smaller than what the prior is shown, and grow while a run goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from configs.run import RunConfig
from configs.serialization import from_yaml, to_yaml
from guidance.priors.mini.prior import MiniPrior
from renderers.meshes.config import MeshConfig
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.training.trainer import Trainer

CPU = torch.device("cpu")
SCENES: tuple[SceneConfig, ...] = (
    SplatConfig(init_count=60, cap_max=80),
    NerfConfig(resolution=8, resolution_end=8, occupancy_resolution=8, samples_per_diameter=16),
    MeshConfig(faces=100, texture_size=16),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: type(scene).__name__)
def test_renders_grow_and_the_prior_sees_them_at_its_own_size(
    scene: SceneConfig, config: RunConfig, prior: MiniPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    encode = MiniPrior.encode

    def noting(self: MiniPrior, rgb: torch.Tensor) -> torch.Tensor:
        shown.append(rgb.shape[-1])
        return encode(self, rgb)

    monkeypatch.setattr(MiniPrior, "encode", noting)
    run = Trainer(replace(config, scene=scene, steps=6, render_sizes=(8, 12, 512)), prior, CPU)
    steps = list(run.steps())
    assert [step.output.rgb.shape[1] for step in steps] == [8, 8, 12, 12, 24, 24]
    assert set(shown) == {24} and all(step.grad_rms > 0 for step in steps)


def test_without_sizes_renders_are_as_large_as_the_prior_sees_them(config: RunConfig) -> None:
    assert [config.render_size(progress, 64) for progress in (0.0, 0.5, 1.0)] == [64] * 3


def test_sizes_go_through_the_file_of_a_run_and_wrong_ones_are_refused(config: RunConfig) -> None:
    sizes = (64, 128)
    assert from_yaml(to_yaml(replace(config, render_sizes=sizes))).render_sizes == sizes
    for wrong in ((0,), (64, 5000), (64,) * 17):
        with pytest.raises(ValueError, match="render_sizes"):
            replace(config, render_sizes=wrong)
