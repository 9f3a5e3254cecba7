"""What a step makes the host wait for, as the pretended device counts it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch

from guidance.priors.diffusers.options import PriorOptions
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.models.loading import load_prior
from sds3d.training.trainer import Trainer
from tests.support.pretend_cuda.counters import COUNTERS
from tests.support.sds3d.model_runs import Folder, asked

FAR = torch.device("cuda")
STEPS = 3
NOT_GROWING = SplatConfig(init_count=60, cap_max=80, refine_start=0.9, refine_stop=0.95)
BUDGETS: dict[str, tuple[SceneConfig, float, float]] = {
    "splats": (NOT_GROWING, 4, 2),
    "voxels": (NerfConfig(resolution=8, resolution_end=8, occupancy_resolution=8, samples_per_diameter=16), 12, 2),
    "hash tables": (
        NerfConfig(field="hashed", resolution=8, resolution_end=16, occupancy_resolution=8, samples_per_diameter=16),
        13,
        2,
    ),
}
"""Scene; synchronizations and pageable uploads in a step at most, those of gsplat and nerfacc themselves included."""


@pytest.mark.parametrize("name", BUDGETS)
def test_a_step_waits_seldom(name: str, folder: Folder) -> None:
    scene, syncs, uploads = BUDGETS[name]
    config = replace(
        asked(folder("sd"), "sd"),
        prior_options=PriorOptions(image_size=16),
        scene=scene,
        batch_size=4,
        steps=40,
        device="cuda",
    )
    steps = Trainer(config, load_prior(config.prior, FAR, config.prior_options), FAR).steps()
    list(islice(steps, 2))  # Texts are read and tables copied once.
    COUNTERS.reset()
    found = list(islice(steps, STEPS))
    told = COUNTERS.table(STEPS)
    assert COUNTERS.syncs.total() <= syncs * STEPS, told
    assert COUNTERS.uploads.total() <= uploads * STEPS, told
    assert not [line for line in COUNTERS.float64 if "upload" in line], told
    assert COUNTERS.launches.total() > 100 * STEPS and all(step.grad_rms > 0 for step in found)
