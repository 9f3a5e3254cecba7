"""The checks that users run themselves: they pass here, notice what is wrong, and are those of the CUDA suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from configs.presets import preset
from renderers.cameras import look_at_origin
from renderers.meshes.config import MeshConfig
from renderers.scene import SceneConfig
from renderers.splats.config import SplatConfig
from renderers.volumes.config import NerfConfig
from sds3d.diagnostics import doctor, selftest
from sds3d.evaluation.scene_evaluation import RECOGNISED, evaluate_scene
from sds3d.models.loading import load_prior
from sds3d.training.trainer import Trainer

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
GROWTHS = [SplatConfig(300, 500, strategy=way, grow_grad2d=1e-6) for way in ("share", "threshold", "mcmc")]
LIT = NerfConfig(
    resolution=16,
    resolution_end=24,
    samples_per_diameter=32,
    occupancy_resolution=8,
    p_shaded=0.5,
    lambda_distortion=0.01,
    lambda_tv=1e-5,
)
SCENES: list[SceneConfig] = [*GROWTHS, LIT, replace(LIT, field="hashed", p_shaded=0.0), MeshConfig(faces=500)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", selftest.SCENES)
def test_a_device_draws_what_the_twin_does(name: str, device: str) -> None:
    found = selftest.parity(selftest.SCENES[name], torch.device(device))
    assert found.good(torch.device(device)), found


@pytest.mark.parametrize("wrong", [0.99, float("nan")])
@pytest.mark.parametrize("part", ["values", "gradients"])
def test_what_is_drawn_wrongly_is_noticed(part: str, wrong: float) -> None:
    def way(device: torch.device, kind: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        picture, gradients = selftest.splats(device, kind)
        off = wrong if kind == torch.float32 else 1.0
        return (picture * off, gradients) if part == "values" else (picture, [gradient * off for gradient in gradients])

    assert not selftest.parity(way, CPU).good(CPU)


def test_the_doctor_tells_and_fails_where_a_check_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unable(device: torch.device, kind: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        raise ModuleNotFoundError("splats need something")

    monkeypatch.setattr(doctor, "report", lambda: [doctor.Finding("torch", "ok", "2.13")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(selftest, "SCENES", {"mesh": selftest.mesh})
    monkeypatch.setattr(selftest, "LARGE", {"mesh": ("one", lambda device: selftest.mesh(device, torch.float32))})
    assert doctor.doctor(json=True, selftest=True) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["name"] for finding in findings] == ["torch", "mesh on cpu", "a step on cpu"]
    assert "gradients by" in findings[1]["detail"] and "ms" in findings[1]["detail"]
    assert "in the prior" in findings[2]["detail"]

    monkeypatch.setattr(selftest, "SCENES", {"splats": unable})
    monkeypatch.setattr(selftest, "steps", lambda device: selftest.Cost(1.0, 0.5, 1.0, 0.0))
    assert doctor.doctor(json=False, selftest=True) == 1
    told = capsys.readouterr().out
    assert "ModuleNotFoundError: splats need something" in told
    assert "SDS3D_KERNELS=torch" in told


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("knobs", SCENES, ids=lambda knobs: f"{type(knobs).__name__}-{knobs}"[:40])
def test_every_scene_learns_grows_and_goes_on_elsewhere(knobs: SceneConfig, device: str) -> None:
    """A few steps towards grey, and the state back on the CPU."""
    scene = knobs.build(device, torch.Generator().manual_seed(0)).to(device)
    adam, losses = Adam(scene.param_groups(0.0), fused=True), []
    looks = look_at_origin(torch.tensor([0.3, 2.0]), torch.tensor([0.2, -0.3]), 24).to(device)
    for step in range(12):
        frame = scene.render(looks, torch.zeros(2, 3, device=device))
        loss = (frame.rgb - 0.7).square().mean() + scene.regularization_loss(frame)
        adam.zero_grad()
        loss.backward()
        adam.step()
        scene.post_step(step / 12, frame, adam)
        losses.append(float(loss.detach()))
        assert scene.failure_reason() is None
    assert sum(losses[-3:]) < sum(losses[:3])
    back = knobs.build("cpu", torch.Generator().manual_seed(9))
    back.load_training_state({name: value.cpu() for name, value in scene.training_state().items()})
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), 32)
    with torch.no_grad():
        here = back.render(looks, torch.ones(1, 3)).rgb
        there = scene.render(looks.to(device), torch.ones(1, 3, device=device)).rgb.cpu()
    assert (here - there).abs().mean() < 1e-3


@pytest.mark.cuda
def test_a_draft_on_cuda_is_recognised() -> None:
    """The whole of it; for times: pytest --durations=0."""
    device = torch.device("cuda")
    run = Trainer(preset("draft").run(selftest.PROMPT), load_prior("mini", device), device)
    for _ in run.steps():
        pass
    found = evaluate_scene(run.scene.cpu(), selftest.PROMPT)
    assert found is not None
    assert found["recognised"] >= RECOGNISED


@pytest.mark.cuda
@pytest.mark.parametrize("name", selftest.LARGE)
def test_times_on_cuda(name: str, record_property: Callable[[str, object], None]) -> None:
    """Notes them in the report; a tenth of a second is far more than any of them takes."""
    what, drawn = selftest.LARGE[name]
    taken = selftest.milliseconds(drawn, torch.device("cuda"))
    record_property(what, taken)
    assert taken < 100
