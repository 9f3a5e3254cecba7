"""The loop: exact gradients, the same chance every time, and no trace of where a run was stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.run import RunConfig
from guidance.embedded import EmbeddedPrior
from guidance.objective import Objective, Update, View
from guidance.prior import Denoiser
from guidance.toy import ToyPrior
from sds3d.distill import Run, Unhealthy, pulled
from sds3d.splat_files import write_splats

CPU = torch.device("cpu")


def run_of(config: RunConfig, prior: EmbeddedPrior | ToyPrior) -> Run:
    return Run(config, prior, CPU)


def take(run: Run, steps: int | None = None) -> Run:
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
    (found,) = torch.autograd.grad(pulled(x, gradient), x)
    # (x - (x - g)) loses a little of g where x is much larger.
    torch.testing.assert_close(found, gradient / 3, rtol=1e-5, atol=1e-6)


def test_the_pull_reaches_what_x_was_made_of() -> None:
    weights, gradient = torch.ones(4, requires_grad=True), torch.arange(4.0)[:, None, None, None]
    (found,) = torch.autograd.grad(pulled(2 * weights[:, None, None, None], gradient), weights)
    torch.testing.assert_close(found, 2 * torch.arange(4.0) / 4)


def test_the_same_seed_gives_the_same_bytes(config: RunConfig, prior: EmbeddedPrior, tmp_path: Path) -> None:
    first, second = (take(run_of(config, prior)) for _ in range(2))
    assert same(first.state(), second.state())
    for name, run in (("first", first), ("second", second)):
        write_splats(tmp_path / name, run.scene)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_another_seed_gives_another_scene(config: RunConfig, prior: EmbeddedPrior) -> None:
    first, second = (take(run_of(replace(config, seed=seed), prior), 1) for seed in (0, 1))
    assert not torch.equal(first.scene.means, second.scene.means)


def test_chance_of_the_surroundings_changes_nothing(config: RunConfig, prior: EmbeddedPrior) -> None:
    first = take(run_of(config, prior), 3)
    torch.manual_seed(99)
    second = run_of(config, prior)
    for _ in second.steps():
        torch.rand(7)
        if second.done == 3:
            break
    assert same(first.state(), second.state())


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_run_goes_on_as_if_never_stopped(config: RunConfig, prior: EmbeddedPrior, stop: int) -> None:
    whole, stopped = take(run_of(config, prior)), take(run_of(config, prior), stop)
    state = {name: value.clone() for name, value in stopped.state().items()}
    again = run_of(config, prior)
    again.restore(state)
    assert again.done == stop
    assert same(again.state(), state)
    assert same(take(again).state(), whole.state())


def test_the_scene_grows_in_these_tests(config: RunConfig, prior: EmbeddedPrior) -> None:
    """Or the test above would not show that grown rows are taken up again."""
    counts = [step.splats for step in run_of(config, prior).steps()]
    assert len(set(counts)) > 1 and max(counts) <= config.scene.max_count


def test_steps_tell_what_they_did(config: RunConfig, prior: EmbeddedPrior) -> None:
    steps = list(run_of(config, prior).steps())
    assert [step.number for step in steps] == list(range(1, 9))
    assert all(step.gradient > 0 and step.seconds >= step.prior_seconds > 0 for step in steps)
    assert steps[0].frame.rgb.shape == (2, 24, 24, 3)


def test_a_finished_run_takes_no_more_steps(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = take(run_of(config, prior))
    before = run.state()
    assert list(run.steps()) == []
    assert same(run.state(), before)


def test_states_of_other_things_are_refused(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = run_of(config, prior)
    state = run.state()
    for broken in ({}, {"done": state["done"]}, {k: v for k, v in state.items() if k != "chance.noise"}):
        with pytest.raises(ValueError, match="not one of a run"):
            run_of(config, prior).restore(broken)
    with pytest.raises(ValueError, match="lack means"):
        run_of(config, prior).restore({k: v for k, v in state.items() if k != "scene.means"})


# --- a prior whose wish is known ---


def test_a_scene_becomes_what_the_prior_wants(config: RunConfig) -> None:
    """One very sure Gaussian over all-blue pictures: the background can not be painted, but the splats can."""
    blue = torch.tensor([0.0, 0.1, 1.0])[None, :, None, None].expand(1, 3, 16, 16).contiguous()
    toy = ToyPrior(blue, torch.tensor([0.05]), {"": (1.0,), config.prompt: (1.0,)})
    run = take(run_of(replace(config, steps=60, scene=replace(config.scene, colour_rate=0.05)), toy))
    solid = run.scene.logit_opacities.sigmoid() > 0.5
    colour = (0.5 + 0.28209479 * run.scene.sh[solid, 0]).mean(0).detach()
    assert float(colour[2]) > 0.75 and float(colour[0]) < 0.35


# --- what goes wrong ---


@dataclass(frozen=True)
class Spoiled(Objective):
    """Gradients with numbers that are none, in one view."""

    value: float = float("nan")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        gradient = 0.1 * view.noise
        gradient[0] = self.value
        return Update(gradient)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_pull_nowhere(config: RunConfig, prior: EmbeddedPrior, value: float) -> None:
    spoiled, clean = (run_of(replace(config, objective=Spoiled(v)), prior) for v in (value, 0.0))
    steps = list(spoiled.steps())
    assert all(0 < step.gradient < 1 for step in steps)
    assert same(spoiled.state(), take(clean).state())


def test_a_scene_that_goes_wrong_ends_the_run(config: RunConfig, prior: EmbeddedPrior) -> None:
    run = run_of(config, prior)
    with torch.no_grad():
        run.scene.means.fill_(float("nan"))
    with pytest.raises(Unhealthy, match=r"step 1: \d+ values of means are not finite"):
        take(run)
