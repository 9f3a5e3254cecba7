"""A step in parts, one after another: the same step, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.registry import OBJECTIVES
from configs.run import RunConfig
from guidance.critics.lora import CriticConfig
from guidance.gradient_clipping import GradientClipping
from guidance.priors.base import make_rng
from renderers.cameras import orbit_cameras
from renderers.meshes.config import MeshConfig
from renderers.scene import cat_outputs
from renderers.splats.config import SplatConfig
from sds3d.console import Console
from sds3d.models.loading import load_prior
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.loop import StopSignal, train
from sds3d.training.trainer import Trainer
from sds3d.training.view_sampling import chunk_slices

CPU = torch.device("cpu")
CONFIG = RunConfig(
    "a red disc",
    prior="toy",
    scene=SplatConfig(init_count=40, cap_max=60),
    critic=CriticConfig(rank=2),
    steps=2,
    batch_size=4,
    device="cpu",
)
Gradients = dict[str, Tensor]


def stepped(config: RunConfig) -> tuple[Trainer, Gradients]:
    """A run after one step, and the gradients that its scene's parameters got."""
    run = Trainer(config, load_prior(config.prior, CPU), CPU)
    next(run.steps())
    return run, {name: p.grad.clone() for name, p in run.scene.named_parameters() if p.grad is not None}


def alike(found: Gradients, wanted: Gradients) -> None:
    """Equal, but for the order of sums; round splats have no rotation to speak of, so the largest sets the scale."""
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 1e-3
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * largest, rtol=1e-3)


@pytest.mark.parametrize(("views", "parts", "many", "sizes"), [(4, 2, 1, [2, 2]), (5, 2, 1, [3, 2]), (8, 4, 4, [4, 4])])
def test_parts_are_whole_groups(views: int, parts: int, many: int, sizes: list[int]) -> None:
    rows = chunk_slices(views, parts, many)
    assert [len(range(views)[part]) for part in rows] == sizes


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize(
    "change", [{}, {"clipping": GradientClipping(pixel_norm=0.01, value=(0.5, 0.5))}], ids=["free", "clipping"]
)
def test_parts_pull_as_the_whole_does(parts: int, change: dict[str, Any]) -> None:
    config = replace(CONFIG, **change)
    whole, wanted = stepped(config)
    pieces, found = stepped(replace(config, num_chunks=parts))
    alike(found, wanted)
    assert isinstance(whole.scene.pull, Tensor) and isinstance(pieces.scene.pull, Tensor)
    torch.testing.assert_close(pieces.scene.pull, whole.scene.pull, atol=1e-5, rtol=1e-3)
    assert torch.equal(pieces.scene.pictures, whole.scene.pictures)  # type: ignore[arg-type]
    for name, rng in whole.rngs.items():
        assert torch.equal(rng.get_state(), pieces.rngs[name].get_state())


def test_a_critic_learns_the_same_from_parts() -> None:
    prior = load_prior("mini", CPU)
    x = torch.randn(
        3, *prior.encode(torch.zeros(1, 3, prior.image_size, prior.image_size)).shape[1:], generator=make_rng(1)
    )
    told = replace(prior.encode_prompt(["a cat"] * 3), camera=torch.zeros(3, 2))
    learnt = []
    for parts in (1, 2):
        critic = CriticConfig(rank=1).build(prior, make_rng(0))  # type: ignore[arg-type]
        critic.train_step(x, told, parts)
        learnt.append(critic._optimizer.state[critic.denoiser.network.get_parameter(next(iter(critic._trainable)))])
    torch.testing.assert_close(learnt[1]["exp_avg"], learnt[0]["exp_avg"], atol=1e-5, rtol=1e-2)


def test_frames_of_a_mesh_come_together() -> None:
    scene = MeshConfig(texture_size=16).build("cpu", make_rng(0))
    cameras = orbit_cameras(3, 0.2, 16)
    whole = scene.render(cameras, torch.ones(3, 3))
    both = cat_outputs([scene.render(cameras[:2], torch.ones(2, 3)), scene.render(cameras[2:], torch.ones(1, 3))])
    torch.testing.assert_close(both.rgb, whole.rgb.detach())
    assert both.info.pixels == whole.info.pixels and not both.rgb.requires_grad


# --- where the memory runs out ---


class Tight:
    """Encodes at most so many pictures at once."""

    def __init__(self, most: int, encode: Callable[[Tensor], Tensor]) -> None:
        self.most, self.encode, self.refused = most, encode, 0

    def __call__(self, rgb: Tensor) -> Tensor:
        if len(rgb) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError
        return self.encode(rgb)


def test_a_step_goes_on_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted = stepped(CONFIG)
    prior = load_prior("toy", CPU)
    tight = Tight(1, prior.encode)
    monkeypatch.setattr(type(prior), "encode", lambda _, rgb: tight(rgb))
    run = Trainer(CONFIG, prior, CPU)
    first, second = run.steps()
    assert run.num_chunks == 4 and tight.refused == 2 and second.warnings == ()
    assert first.warnings == tuple(f"the memory ran out: from here on a step's pictures in {n} parts" for n in (2, 4))
    again, found = stepped(replace(CONFIG, num_chunks=4))
    alike(found, wanted)
    next(again.steps())
    assert all(
        torch.equal(value, run.scene.training_state()[name]) for name, value in again.scene.training_state().items()
    )


def test_the_memory_that_runs_out_is_told_and_kept_a_checkpoint_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = load_prior("toy", CPU)
    tight = Tight(2, prior.encode)
    monkeypatch.setattr(type(prior), "encode", lambda _, rgb: tight(rgb))
    run, record = Trainer(CONFIG, prior, CPU), RunDirectory.new(tmp_path / "run", CONFIG)
    train(run, record, Console("live"), StopSignal())
    assert "from here on a step's pictures in 2 parts" in capsys.readouterr().out
    assert int(record.latest()[0]["done"]) == 2

    run, record = Trainer(replace(CONFIG, steps=9), prior, CPU), RunDirectory.new(tmp_path / "other", CONFIG)
    next(run.steps())
    tight.most = 0
    with pytest.raises(ValueError, match="the memory of cpu ran out at step 2, picture by picture; see: sds3d plan"):
        train(run, record, Console("quiet"), StopSignal())
    assert int(record.latest()[0]["done"]) == 1


@pytest.mark.parametrize("count", [0, 5])
def test_parts_there_can_not_be(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_chunks is {count}; expected 1 to 4, the pictures in a step"):
        replace(CONFIG, num_chunks=count)


@pytest.mark.parametrize("name", ["sds", "csd", "ism"])
def test_objectives_in_parts(name: str) -> None:
    config = replace(CONFIG, objective=OBJECTIVES[name]())
    (_, wanted), (_, found) = stepped(config), stepped(replace(config, num_chunks=2))
    alike(found, wanted)
