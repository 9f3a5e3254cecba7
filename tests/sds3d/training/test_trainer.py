"""The loop: exact gradients, the same chance every time, and no trace of where a run was stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from configs.registry import objective_class
from configs.run import RunConfig
from guidance.critics.lora import CriticConfig
from guidance.objectives.base import Objective, ObjectiveOutput, ViewBatch
from guidance.objectives.variational.disback import StagedPrior
from guidance.priors.base import Denoiser, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.schedule import RectifiedFlowSchedule
from sds3d.console import Console
from sds3d.export.turntable import write_turntable
from sds3d.formats.splat_ply import write_splats
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.finalize import finalize
from sds3d.training.trainer import Trainer, TrainingFailed, surrogate_loss

CPU = torch.device("cpu")


def run_of(config: RunConfig, prior: MiniPrior | GaussianMixturePrior) -> Trainer:
    return Trainer(config, prior, CPU)


def take(run: Trainer, steps: int | None = None) -> Trainer:
    """The run after so many more steps, or all."""
    for done, _ in enumerate(run.steps(), 1):
        if done == steps:
            break
    return run


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_pull_is_exactly_the_gradient_over_the_views() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 4, generator=chance).requires_grad_()
    gradient = torch.randn(3, 2, 4, 4, generator=chance)
    (found,) = torch.autograd.grad(surrogate_loss(x, gradient), x)
    # (x - (x - g)) loses a little of g where x is much larger.
    torch.testing.assert_close(found, gradient / 3, rtol=1e-5, atol=1e-6)


def test_the_pull_reaches_what_x_was_made_of() -> None:
    weights, gradient = torch.ones(4, requires_grad=True), torch.arange(4.0)[:, None, None, None]
    (found,) = torch.autograd.grad(surrogate_loss(2 * weights[:, None, None, None], gradient), weights)
    torch.testing.assert_close(found, 2 * torch.arange(4.0) / 4)


def test_the_same_seed_gives_the_same_bytes(config: RunConfig, prior: MiniPrior, tmp_path: Path) -> None:
    first, second = (take(run_of(config, prior)) for _ in range(2))
    assert same(first.training_state(), second.training_state())
    for name, run in (("first", first), ("second", second)):
        write_splats(tmp_path / name, run.scene)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_another_seed_gives_another_scene(config: RunConfig, prior: MiniPrior) -> None:
    first, second = (take(run_of(replace(config, seed=seed), prior), 1) for seed in (0, 1))
    assert not torch.equal(first.scene.means, second.scene.means)


def test_chance_of_the_surroundings_changes_nothing(config: RunConfig, prior: MiniPrior) -> None:
    first = take(run_of(config, prior), 3)
    torch.manual_seed(99)
    second = run_of(config, prior)
    for _ in second.steps():
        torch.rand(7)
        if second.step == 3:
            break
    assert same(first.training_state(), second.training_state())


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_run_goes_on_as_if_never_stopped(config: RunConfig, prior: MiniPrior, stop: int) -> None:
    whole, stopped = take(run_of(config, prior)), take(run_of(config, prior), stop)
    state = {name: value.clone() for name, value in stopped.training_state().items()}
    again = run_of(config, prior)
    again.load_training_state(state)
    assert again.step == stop
    assert same(again.training_state(), state)
    assert same(take(again).training_state(), whole.training_state())


def test_the_scene_grows_in_these_tests(config: RunConfig, prior: MiniPrior) -> None:
    """Or the test above would not show that grown rows are taken up again."""
    counts = [int(step.scene_summary.split()[0]) for step in run_of(config, prior).steps()]
    assert len(set(counts)) > 1 and max(counts) <= config.scene.cap_max


def test_steps_tell_what_they_did(config: RunConfig, prior: MiniPrior) -> None:
    steps = list(run_of(config, prior).steps())
    assert [step.number for step in steps] == list(range(1, 9))
    assert all(step.grad_rms > 0 and step.seconds >= step.prior_seconds > 0 for step in steps)
    assert steps[0].output.rgb.shape == (2, 24, 24, 3)


def test_a_finished_run_takes_no_more_steps(config: RunConfig, prior: MiniPrior) -> None:
    run = take(run_of(config, prior))
    before = run.training_state()
    assert list(run.steps()) == []
    assert same(run.training_state(), before)


def test_states_of_other_things_are_refused(config: RunConfig, prior: MiniPrior) -> None:
    run = run_of(config, prior)
    state = run.training_state()
    for broken in ({}, {"done": state["done"]}, {k: v for k, v in state.items() if k != "chance.noise"}):
        with pytest.raises(ValueError, match="not one of a run"):
            run_of(config, prior).load_training_state(broken)
    with pytest.raises(ValueError, match="lack means"):
        run_of(config, prior).load_training_state({k: v for k, v in state.items() if k != "scene.means"})


# --- a prior whose wish is known ---


def test_a_scene_becomes_what_the_prior_wants(config: RunConfig) -> None:
    """One very sure Gaussian over all-blue pictures: the background can not be painted, but the splats can."""
    blue = torch.tensor([0.0, 0.1, 1.0])[None, :, None, None].expand(1, 3, 16, 16).contiguous()
    toy = GaussianMixturePrior(blue, torch.tensor([0.05]), {"": (1.0,), config.prompt: (1.0,)})
    run = take(run_of(replace(config, steps=60, scene=replace(config.scene, sh_lr=0.05)), toy))
    solid = run.scene.logit_opacities.sigmoid() > 0.5
    colour = (0.5 + 0.28209479 * run.scene.sh[solid, 0]).mean(0).detach()
    assert float(colour[2]) > 0.75 and float(colour[0]) < 0.35


# --- what goes wrong ---


@dataclass(frozen=True)
class Spoiled(Objective):
    """Gradients with numbers that are none, in one view."""

    value: str = "nan"
    """A number; runs refuse fields that are none."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        gradient = 0.1 * batch.noise
        gradient[0] = float(self.value)
        return ObjectiveOutput(gradient)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_pull_nowhere(config: RunConfig, prior: MiniPrior, value: str) -> None:
    spoiled, clean = (run_of(replace(config, objective=Spoiled(v)), prior) for v in (value, "0"))
    steps = list(spoiled.steps())
    assert all(0 < step.grad_rms < 1 for step in steps)
    assert same(spoiled.training_state(), take(clean).training_state())


def test_a_scene_that_goes_wrong_ends_the_run(config: RunConfig, prior: MiniPrior) -> None:
    run = run_of(config, prior)
    with torch.no_grad():
        run.scene.means.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match=r"step 1: \d+ values of means are not finite"):
        take(run)


# --- who learns beside the scene ---


def with_critic(config: RunConfig, name: str, **changes: object) -> RunConfig:
    """A run of another objective; its companions are small."""
    knobs = CriticConfig(rank=2, num_prior_samples=5, num_stages=2, stage_steps=2)
    return replace(config, objective=objective_class(name)(), critic=knobs, **changes)


@pytest.mark.parametrize(
    ("name", "stop", "changes"),
    [
        ("vsd", 3, {}),
        ("vsd", 3, {"particles": 2}),
        ("esd", 5, {}),
        ("f-vsd", 2, {}),
        ("disback", 1, {"particles": 2}),
        ("disback", 2, {"perp_neg": 1.0, "view_conditioning": "text"}),
    ],
    ids=str,
)
def test_a_run_with_a_critic_goes_on_as_if_never_stopped(
    config: RunConfig, prior: MiniPrior, name: str, stop: int, changes: dict[str, object]
) -> None:
    config = with_critic(config, name, **changes)
    whole, stopped = take(run_of(config, prior)), take(run_of(config, prior), stop)
    state = {name: value.clone() for name, value in stopped.training_state().items()}
    again = run_of(config, prior)
    again.load_training_state(state)
    assert same(again.training_state(), state)
    assert same(take(again).training_state(), whole.training_state())


def additions(run: Trainer) -> dict[str, Tensor]:
    """What the critic has put on the prior's layers."""
    return {name.split("weights.")[1]: v for name, v in run.guidance.training_state().items() if "weights." in name}


@pytest.mark.parametrize("name", ["vsd", "esd", "f-vsd", "pg-sb", "disback"])
def test_the_critic_learns_with_every_step(config: RunConfig, prior: MiniPrior, name: str) -> None:
    before = {key: value.clone() for key, value in prior.network.state_dict().items()}
    run = run_of(with_critic(config, name, steps=3), prior)
    fresh = additions(run)
    steps = list(run.steps())
    assert all(step.logs["critic_error"] > 0 for step in steps)
    assert len(fresh) > 40 and not any(torch.equal(value, fresh[name]) for name, value in additions(run).items())
    assert same(prior.network.state_dict(), before)


def test_who_needs_no_critic_has_none(config: RunConfig, prior: MiniPrior) -> None:
    run = take(run_of(config, prior), 1)
    assert (
        run.guidance.training_state() == {}
        and run.guidance.critic is prior
        and run.guidance.teacher(prior.encode_prompt([""])) is prior
    )


def test_the_way_back_leads_from_the_renders_to_the_prior(config: RunConfig, prior: MiniPrior) -> None:
    """Stages answer more and more like the prior; the critic starts as the first of them."""
    run = run_of(with_critic(config, "disback"), prior)
    next(run.steps())
    prompt = run.prompt.conditions_for(prior, torch.zeros(3), torch.zeros(3))
    x_t, t = torch.randn(3, 12, 4, 4, generator=make_rng(1)), torch.full((3,), 0.5)
    teacher = run.guidance.teacher(prompt.uncond)
    assert isinstance(teacher, StagedPrior)
    with torch.no_grad():
        plain = prior.predict_noise(x_t, t, [prompt.text_with_camera])
        apart = [
            float((stage.predict_noise(x_t, t, [prompt.text_with_camera]) - plain).norm()) for stage in teacher.stages
        ]
    assert len(apart) == 3 and apart[0] > apart[1] > apart[2] == 0


def test_samples_are_what_the_prior_draws(config: RunConfig, prior: MiniPrior) -> None:
    run = run_of(with_critic(config, "f-vsd"), prior)
    next(run.steps())
    state = run.training_state()
    samples, angles = state["beside.samples.x"], state["beside.samples.angles"]
    assert samples.shape == (5, 12, 4, 4) and angles.shape == (5, 2)
    assert len(angles.unique(dim=0)) == 5 and bool(samples.isfinite().all())
    torch.testing.assert_close(prior.encode(prior.decode(samples)), samples, atol=1e-3, rtol=1e-3)


@dataclass(frozen=True)
class Flowing(Spoiled):
    """An objective of flow matching."""

    needs_flow_prior: ClassVar[bool] = True


@dataclass(frozen=True)
class Editing(Spoiled):
    """An objective that edits."""

    needs_source: ClassVar[bool] = True


@dataclass(frozen=True)
class Composing(Spoiled):
    """An objective with texts for parts."""

    needs_regions: ClassVar[bool] = True


def test_needs_that_are_not_met_are_told_at_the_start(config: RunConfig, prior: MiniPrior) -> None:
    toy = GaussianMixturePrior(torch.zeros(1, 3, 16, 16), torch.ones(1), {"": (1.0,), config.prompt: (1.0,)})
    for name in ("vsd", "f-vsd", "disback"):
        with pytest.raises(ValueError, match=rf"^{name} needs a critic; the prior .* has no network to put one on$"):
            run_of(replace(with_critic(config, name), prior="toy"), toy)
    flowing = r"Flowing needs a flow-matching prior, whose alpha and sigma sum to 1; half-way .* sum to 1\.38$"
    with pytest.raises(ValueError, match=flowing):
        run_of(replace(config, objective=Flowing()), prior)
    run_of(replace(config, objective=Flowing()), replace(toy, schedule=RectifiedFlowSchedule()))
    with pytest.raises(ValueError, match="Editing edits a scene that is there already"):
        run_of(replace(config, objective=Editing()), prior)
    with pytest.raises(ValueError, match="Composing needs texts for parts of the scene"):
        run_of(replace(config, objective=Composing()), prior)


# --- several particles ---


def test_particles_differ_and_take_turns(config: RunConfig, prior: MiniPrior) -> None:
    run = run_of(replace(config, particles=3), prior)
    starts = [particle.scene.means.detach().clone() for particle in run.particles]
    assert not any(torch.equal(a, b) for a, b in combinations(starts, 2))
    moved = []
    for _ in run.steps():
        moved.append([not torch.equal(p.scene.means, s) for p, s in zip(run.particles, starts, strict=True)])
        if run.step == 3:
            break
    assert moved == [[True, False, False], [True, True, False], [True, True, True]]
    result = Result.from_state(run.training_state(), run.config)
    for scene, particle in zip((result.scene, *result.other_particles), run.particles, strict=True):
        assert torch.equal(scene.means, particle.scene.means)


def test_one_particle_is_the_first_of_many(config: RunConfig, prior: MiniPrior) -> None:
    alone, among = (run_of(replace(config, particles=count), prior) for count in (1, 4))
    assert torch.equal(alone.scene.means, among.scene.means)
    assert same(take(alone, 1).scene.training_state(), take(among, 1).scene.training_state())


@pytest.mark.parametrize("count", [0, 65])
def test_a_number_of_particles_that_makes_no_sense_is_refused(config: RunConfig, count: int) -> None:
    with pytest.raises(ValueError, match=f"particles is {count}; expected 1 to 64"):
        replace(config, particles=count)


def test_every_particle_becomes_an_asset(
    config: RunConfig, prior: MiniPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds3d.training.finalize.write_turntable", partial(write_turntable, frames=2, size=32))
    config = replace(config, particles=3, steps=3)
    run = take(run_of(config, prior))
    with torch.no_grad():
        run.particles[2].scene.logit_opacities.fill_(-9)  # nothing a mesh could be made of
    told: list[str] = []
    console = Console("quiet")
    monkeypatch.setattr(console, "log", lambda text, **facts: told.append(text))
    finalize(run.result, RunDirectory.new(tmp_path / "run", config), console, 1.0)
    assert sorted(file.name for file in (tmp_path / "run").glob("*.glb")) == ["asset.glb", "asset_2.glb"]
    assert any(text.startswith("no asset_3.glb: ") for text in told)
    first, second = ((tmp_path / "run" / name).read_bytes() for name in ("asset.glb", "asset_2.glb"))
    assert first[:4] == second[:4] == b"glTF" and first != second
