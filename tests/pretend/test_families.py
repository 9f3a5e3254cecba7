"""Models in the diffusers layout on the pretended device: every way to open and to run them gives the CPU's scene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from guidance.critics.lora import CriticConfig
from guidance.priors.diffusers.options import PriorOptions
from renderers.meshes.config import MeshConfig
from renderers.scene import SceneConfig, TrainableScene
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.models.loading import load_prior
from sds3d.training.trainer import Trainer
from tests.guidance.priors.diffusers.test_image_prompt import save_adapter
from tests.guidance.priors.diffusers.test_multiview import make_folder
from tests.support.guidance.multiview_reference import MultiViewReference
from tests.support.guidance.tiny_models import KINDS
from tests.support.sds3d.four_views import shown
from tests.support.sds3d.model_runs import Folder, asked, lora_of, source

FULL = PriorOptions(image_size=16, precision="full")
NEAR, FAR = torch.device("cpu"), torch.device("cuda")
SCENES: dict[str, SceneConfig] = {
    "splats": SplatConfig(init_count=60, cap_max=80),
    "splats by threshold": SplatConfig(
        init_count=60, cap_max=80, absgrad=True, strategy="threshold", refine_start=0.1, refine_stop=0.9
    ),
    "splats by mcmc": SplatConfig(init_count=60, cap_max=80, strategy="mcmc", refine_start=0.1, refine_stop=0.9),
    "voxels": NerfConfig(resolution=8, resolution_end=8, occupancy_resolution=8, samples_per_diameter=16),
    "hash tables": NerfConfig(
        field="hashed", resolution=8, resolution_end=16, occupancy_resolution=8, samples_per_diameter=16
    ),
    "mesh": MeshConfig(faces=60, texture_size=16),
}
CLOSE = 2e-3
"""Mean difference of pictures of 0..1, of two runs of a few steps: Adam makes much of gradients of nearly nothing."""


def some(names: Iterable[str], *quick: str) -> list[Any]:
    """All of them, of which all but these are slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_CACHE", str(tmp_path / "cache"))


def ran(config: RunConfig, device: torch.device, restored: bool = False) -> TrainableScene:
    """The scene after all steps; `restored`: taken up again from its checkpoint before the last."""

    def started() -> Trainer:
        return Trainer(config, load_prior(config.prior, device, config.prior_options), device, source(config))

    run = started()
    for step in run.steps():
        assert step.grad_rms > 0
        if restored and step.number == config.steps - 1:
            state = {name: value.cpu().clone() for name, value in run.training_state().items()}
            run = started()
            run.load_training_state(state)
            (_,) = run.steps()
            break
    return run.scene


def same(config: RunConfig, there: RunConfig | None = None, **how: Any) -> None:
    """The run on the device, of `there` where that is another one, gives the scene that the CPU gives."""
    far = ran(replace(there or config, device="cuda"), FAR, **how)
    assert {value.device.type for value in far.parameters()} == {"cuda"}
    apart = (shown(ran(config, NEAR)) - shown(far)).abs()
    assert float(apart.mean()) < CLOSE


@pytest.mark.parametrize("kind", some(KINDS, "sdxl", "sd3"))
def test_every_family(kind: str, folder: Folder) -> None:
    same(replace(asked(folder(kind), kind), prior_options=FULL))


@pytest.mark.parametrize("scene", some(SCENES, "splats by threshold", "hash tables"))
def test_every_kind_of_scene(scene: str, folder: Folder) -> None:
    same(replace(asked(folder("sd"), "sd"), prior_options=FULL, scene=SCENES[scene], steps=3))


WAYS: dict[str, Any] = {
    "in half precision": {"there": {"prior_options": PriorOptions(image_size=16)}},
    "low memory": {"there": {"prior_options": replace(FULL, low_memory=True)}},
    "offloaded": {"there": {"prior_options": replace(FULL, cpu_offload=True)}},
    "in small passes": {"there": {"prior_options": replace(FULL, max_batch=1)}},
    "accumulated": {"there": {"num_chunks": 2}},
    "restored": {"restored": True},
    "particles": {"config": {"particles": 2, "steps": 4}},
    "perp-neg": {"config": {"perp_neg": 1.0, "negative_prompt": "ugly"}},
    "a critic": {"config": {"objective": OBJECTIVES["vsd"]()}},
    "a critic, offloaded": {
        "config": {"objective": OBJECTIVES["vsd"]()},
        "there": {"prior_options": replace(FULL, cpu_offload=True)},
    },
    "a critic, restored": {"config": {"objective": OBJECTIVES["vsd"]()}, "restored": True},
}


@pytest.mark.parametrize("way", some(WAYS, "low memory", "offloaded", "accumulated", "a critic, restored"))
def test_every_way(way: str, folder: Folder) -> None:
    given = WAYS[way]
    config = replace(asked(folder("sd"), "sd"), prior_options=FULL, **given.get("config", {}))
    same(config, replace(config, **given.get("there", {})), restored=given.get("restored", False))


def test_kept_texts_and_fresh_ones_go_together(folder: Folder) -> None:
    """What an earlier run read comes from the disk, and lies on the CPU; what it did not is read on the device."""
    extras = replace(FULL, low_memory=True)
    prompts = ["a mug", "a red mug", "a mug"]
    for kind in ("sdxl", "pixart"):
        load_prior(str(folder(kind)), FAR, extras).encode_prompt(prompts[:1])
        read = load_prior(str(folder(kind)), FAR, extras).encode_prompt(prompts)
        truth = load_prior(str(folder(kind)), NEAR, FULL).encode_prompt(prompts)
        assert read.text_embeds.device.type == read.attention_mask.device.type == "cuda"
        torch.testing.assert_close(read.text_embeds.cpu(), truth.text_embeds, rtol=1e-4, atol=1e-5)


def multi_view(folder: Path, tmp_path: Path, picture: bool) -> RunConfig:
    image = tmp_path / "wanted.png"
    Image.new("RGB", (64, 64), (200, 40, 40)).save(image)
    return RunConfig(
        "a teddy bear",
        prior=str(make_folder(MultiViewReference(image_prompt=picture), folder)),
        image_prompt=str(image) if picture else "",
        prior_options=FULL,
        scene=SCENES["splats"],
        critic=CriticConfig(rank=1, num_prior_samples=4),
        steps=2,
        batch_size=4,
        device="cpu",
    )


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("picture", [False, True])
def test_several_views_at_once(picture: bool, offload: bool, tmp_path: Path) -> None:
    config = multi_view(tmp_path / "model", tmp_path, picture)
    same(config, replace(config, prior_options=replace(FULL, cpu_offload=offload)))


@pytest.mark.parametrize("offload", [False, True])
def test_a_picture_by_an_adapter_and_a_lora(offload: bool, folder: Folder, tmp_path: Path) -> None:
    image, lora = tmp_path / "wanted.png", tmp_path / "lora.safetensors"
    Image.new("RGB", (64, 64), (200, 40, 40)).save(image)
    lora_of("sd", lora)
    extras = replace(FULL, ip_adapter=str(save_adapter("sd", tmp_path / "adapter")), lora=str(lora))
    config = replace(asked(folder("sd"), "sd"), prior_options=extras, image_prompt=str(image))
    same(config, replace(config, prior_options=replace(extras, cpu_offload=offload)))


def objectives_for(kind: str) -> list[str]:
    flow, distilled = kind in ("sd3", "flux", "sana"), kind == "flux"
    return [
        name
        for name, rule in OBJECTIVES.items()
        if (flow or not rule.needs_flow_prior) and not (distilled and rule.needs_undistilled_prior)
    ]


@pytest.mark.parametrize("name", some(objectives_for("sd"), "ism", "dds"))
def test_every_objective(name: str, folder: Folder) -> None:
    same(replace(asked(folder("sd"), "sd", name, steps=1), prior_options=FULL))


@pytest.mark.parametrize("scene", some(SCENES, "voxels", "mesh"))
def test_an_edit_of_every_kind_of_scene(scene: str, folder: Folder) -> None:
    """The scene that is edited lies on the CPU when it comes out of its checkpoint, with all that it is made of."""
    same(replace(asked(folder("sd"), "sd", "dds", steps=1), prior_options=FULL, scene=SCENES[scene]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_on_every_family(kind: str, folder: Folder) -> None:
    """On another kind of scene each, so that all of the kinds meet all families and all objectives."""
    scenes = list(SCENES.values())
    for place, name in enumerate(objectives_for(kind), KINDS.index(kind)):
        same(replace(asked(folder(kind), kind, name, steps=1), prior_options=FULL, scene=scenes[place % len(scenes)]))
