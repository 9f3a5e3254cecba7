"""What draws on a GPU: built before the first step, or done without; and on which of several GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guidance.priors.diffusers.options import PriorOptions
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.models.loading import load_prior
from sds3d.training.loop import device_of
from sds3d.training.trainer import Trainer
from tests.support.pretend_cuda.memory import MEMORY
from tests.support.sds3d.four_views import shown
from tests.support.sds3d.model_runs import Folder, asked

ROOT = Path(__file__).parents[2]
FULL = PriorOptions(image_size=16, precision="full")
SCENES: dict[str, tuple[SceneConfig, str]] = {
    "splats": (SplatConfig(init_count=60, cap_max=80), "gsplat"),
    "nerf": (NerfConfig(resolution=8, resolution_end=8, occupancy_resolution=8, samples_per_diameter=16), "nerfacc"),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_torch_renderer_gives_the_same_scene(name: str, folder: Folder) -> None:
    config = replace(asked(folder("sd"), "sd"), prior_options=FULL, scene=SCENES[name][0], device="cuda")
    scenes = []
    for renderer in ("auto", "torch"):
        prior = load_prior(config.prior, torch.device("cuda"), FULL)
        run = Trainer(replace(config, renderer=renderer), prior, torch.device("cuda"))  # type: ignore[arg-type]
        list(run.steps())
        scenes.append(shown(run.scene))
    assert float((scenes[0] - scenes[1]).abs().mean()) < 2e-3


@pytest.mark.parametrize("name", SCENES)
def test_without_nvcc_a_run_says_so_before_its_first_step(name: str, prior_folder: Path, tmp_path: Path) -> None:
    library = SCENES[name][1]
    words = ["generate", "a red teddy bear", "--prior", str(prior_folder), "--scene", name, "--device", "cuda"]
    command = [
        sys.executable,
        "-m",
        "tests.support.pretend_cuda",
        *words,
        "--steps",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    env = os.environ | {"PRETEND_CUDA": f"no-{library}"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert library in last and "nvcc" in last and "--renderer torch" in last


def test_everything_goes_to_the_gpu_that_was_asked_for(folder: Folder) -> None:
    """Operations between two GPUs raise, so what ran was on one; and nothing was put on the other."""
    config = replace(asked(folder("sd"), "sd", "vsd"), prior_options=FULL, device="cuda:1")
    device = device_of(config)
    before = MEMORY.now[0]
    MEMORY.reset_peak(0)
    run = Trainer(config, load_prior(config.prior, device, FULL), device)
    list(run.steps())
    assert {value.device for value in run.scene.parameters()} == {torch.device("cuda:1")}
    assert MEMORY.peak[0] == before and MEMORY.peak[1] > 0


def test_a_gpu_that_is_not_there_is_named() -> None:
    from configs.run import RunConfig

    with pytest.raises(ValueError, match="cuda:7"):
        device_of(RunConfig("a mug", device="cuda:7"))
    with pytest.raises(ValueError, match="expected auto"):
        RunConfig("a mug", device="gpu")
