"""What every objective keeps to, as tests to inherit.

In a test module of one's own, which pytest (or any runner of `test_...` methods) then runs:

    from guidance.testing.objective_checks import ObjectiveChecks

    class TestMine(ObjectiveChecks):
        def objective(self) -> Objective:
            return Mine(strength=2.0)

All happens on small pictures before an exact prior (`guidance.priors.gaussian_mixture`), in well under a second.
"""

from __future__ import annotations

import math
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass, replace
from types import FrameType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from guidance.conditioning.conditions import ViewConditions
from guidance.objectives.base import EditSource, Objective, ObjectiveOutput, RegionMasks, ViewBatch
from guidance.priors.base import Denoiser, make_rng
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.testing.oracles import DensityRatioOracle, StagedOracle, count_calls, mixture_oracle

DTYPES = (torch.float32, torch.float64)
_TIMESTEPS = (0.3, 0.6, 0.9)


class ObjectiveChecks(ABC):
    """Inherit, say which objective, and run. `prior`, `critic` and `views` may be replaced where they do not suit."""

    @abstractmethod
    def objective(self) -> Objective:
        """The objective that is checked."""

    def prior(self, dtype: torch.dtype) -> Denoiser:
        """What the objective asks: exact, a flow-matching model and with stages if need be."""
        objective = self.objective()
        prior = mixture_oracle(0, dtype, objective.needs_flow_prior)
        return (
            StagedOracle(**vars(prior), first=mixture_oracle(2, dtype, objective.needs_flow_prior))
            if objective.needs_prior_stages
            else prior
        )

    def critic(self, dtype: torch.dtype) -> Denoiser:
        """What it asks beside the prior if it needs a critic: exact for other data, and for ratios if need be."""
        objective = self.objective()
        critic = mixture_oracle(1, dtype, objective.needs_flow_prior)
        return (
            DensityRatioOracle(**vars(critic), prior=mixture_oracle(0, dtype, objective.needs_flow_prior))
            if objective.needs_discriminator
            else critic
        )

    def view_batches(self, dtype: torch.dtype) -> list[ViewBatch]:
        """Noised looks at the start, the middle and the end of a run, three views each."""
        return [make_view_batch(self.objective(), dtype, progress) for progress in (0.0, 0.5, 1.0)]

    def run_objective(self, batch: ViewBatch, objective: Objective | None = None) -> ObjectiveOutput:
        """The objective's answer to a view, with the roles that a run would give it."""
        objective = objective or self.objective()
        prior = self.prior(batch.latents.dtype)
        critic = self.critic(batch.latents.dtype) if objective.needs_critic else prior
        return objective(prior, critic, batch)

    def test_is_a_frozen_dataclass(self) -> None:
        objective = self.objective()
        kind = type(objective)
        assert is_dataclass(kind) and "__dataclass_params__" in vars(kind), f"{kind.__name__} is no dataclass itself"
        assert vars(kind)["__dataclass_params__"].frozen, f"{kind.__name__} is not frozen"
        assert replace(objective) == objective, "a copy with the same values is not equal"
        assert hash(replace(objective)) == hash(objective), "a copy with the same values has another hash"
        bare = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        assert not bare, f"{', '.join(bare)} need a default, so that a name is enough to choose {kind.__name__}"

    def test_hyperparameters_are_not_changed(self) -> None:
        objective = self.objective()
        before = deepcopy(vars(objective))
        self.run_objective(self.view_batches(torch.float64)[1], objective)
        assert vars(objective) == before, "a call changed the objective"

    def test_grad_has_the_shape_of_the_latents(self) -> None:
        for dtype in DTYPES:
            views = self.view_batches(dtype)
            ends = [replace(views[0], t=torch.full_like(views[0].t, time)) for time in (0.02, 0.98)]
            for view in views + ends:
                grad = self.run_objective(view).grad
                where = f"{dtype}, t from {float(view.t.min()):.2f}, progress {view.progress}"
                assert grad.shape == view.latents.shape, (
                    f"shape {tuple(grad.shape)} of {tuple(view.latents.shape)}: {where}"
                )
                assert grad.dtype == dtype, f"the gradient is {grad.dtype}: {where}"
                assert grad.device == view.latents.device, f"the gradient is on {grad.device}: {where}"
                assert not grad.requires_grad, f"the gradient is not detached: {where}"
                assert bool(grad.isfinite().all()), f"the gradient is not finite: {where}"

    def test_logs_are_finite(self) -> None:
        for view in self.view_batches(torch.float64):
            for name, value in self.run_objective(view).logs.items():
                assert isinstance(value, (int, float)), f"{name} is a {type(value).__name__}, not a number"
                assert math.isfinite(value), f"{name} is {value}"

    def test_is_deterministic(self) -> None:
        objective = self.objective()
        view, other, _ = self.view_batches(torch.float64)
        first = self.run_objective(view, objective)
        self.run_objective(other, objective)
        for again in (self.run_objective(view, objective), self.run_objective(view)):
            assert torch.equal(first.grad, again.grad), "the same view gave another gradient"
            assert first.logs == again.logs, "the same view gave other figures"

    def test_batch_equals_per_view(self) -> None:
        for view in self.view_batches(torch.float64):
            batched = self.run_objective(view).grad
            for index in range(len(view.latents)):
                alone = self.run_objective(view.select(torch.tensor([index]))).grad[0]
                close = torch.allclose(batched[index], alone, rtol=1e-7, atol=1e-9)
                assert close, f"view {index} is pulled otherwise alone than among others, at progress {view.progress}"

    def test_uses_no_global_rng(self) -> None:
        for view in self.view_batches(torch.float64):
            before = _global_rng_state()
            with _track_python_random() as draws:
                self.run_objective(view)
            drawn = [name for name, state in _global_rng_state().items() if state != before[name]]
            names = ", ".join([*drawn, "random"] if draws else drawn)
            assert not names, f"it drew from the global generator of {names}; a view brings all chance along"

    def test_view_batch_is_not_modified(self) -> None:
        for view in self.view_batches(torch.float64):
            before = list(_iter_tensors(deepcopy(view)))
            self.run_objective(view)
            after = list(_iter_tensors(view))
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            assert same, f"a call changed the view, at progress {view.progress}"
            assert not any(tensor.requires_grad for tensor in after), "a call made the view require gradients"

    def test_works_without_grad(self) -> None:
        view = self.view_batches(torch.float64)[1]
        with torch.enable_grad():
            on = self.run_objective(view).grad
            assert torch.is_grad_enabled(), "a call switched gradients off"
        with torch.no_grad():
            off = self.run_objective(view).grad
            assert not torch.is_grad_enabled(), "a call switched gradients on"
        assert torch.equal(on, off), "the gradient changes where torch.no_grad() is on, as it is in a run"

    def test_number_of_forward_passes_matches_info(self) -> None:
        objective = self.objective()
        if objective.info is None:
            return
        fewest, most = objective.info.forward_passes
        for view in self.view_batches(torch.float64):
            for index in range(len(view.latents)):
                of_prior: list[int] = []
                of_critic: list[int] = []
                prior = count_calls(self.prior(torch.float64), of_prior)
                critic = count_calls(self.critic(torch.float64), of_critic) if objective.needs_critic else prior
                objective(prior, critic, view.select(torch.tensor([index])))
                when = f"at time {float(view.t[index]):.2f}"
                count, declared = sum(of_prior), objective.info.critic_passes
                assert fewest <= count <= most, f"{count} answers {when}; told {fewest} to {most}"
                assert sum(of_critic) == declared, f"{sum(of_critic)} answers of the critic {when}; told {declared}"

    def test_negative_prompt_usage_is_declared(self) -> None:
        used = False
        for view in self.view_batches(torch.float64):
            without = replace(view, conditions=replace(view.conditions, negative=view.conditions.uncond))
            used |= not torch.equal(self.run_objective(view).grad, self.run_objective(without).grad)
        declared = self.objective().uses_negative_prompt
        assert used == declared, (
            f"uses_negative_prompt is {declared}; the negative prompt {'changes' if used else 'leaves'} updates"
        )

    def test_info_is_complete(self) -> None:
        info = self.objective().info
        if info is None:
            return
        for name in ("title", "reference", "guidance_scale", "timestep_range", "summary"):
            text = getattr(info, name)
            assert text.strip() and "\n" not in text, f"{name} is {text!r}; expected one line"
        assert 0 <= info.forward_passes[0] <= info.forward_passes[1], (
            f"forward_passes are {info.forward_passes}; expected fewest and most"
        )


def make_view_batch(objective: Objective, dtype: torch.dtype, progress: float) -> ViewBatch:
    """Three views at three times; with what they were before, and with regions, only for an objective in need."""
    rng = make_rng(7 + round(progress * 100))
    prior, count = mixture_oracle(0, dtype), len(_TIMESTEPS)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    text = prior.encode_prompt(["wanted"] * count)
    text = replace(text, camera=drawn(count, 2), image_embeds=drawn(count, 2, 3))
    uncond, negative = prior.encode_prompt([""] * count), prior.encode_prompt(["unwanted"] * count)
    text_with_camera = replace(prior.encode_prompt(["wanted"] * count), camera=drawn(count, 2))
    x = drawn(count, 3, 4, 4)
    batch = ViewBatch.sample(
        x, torch.tensor(_TIMESTEPS, dtype=dtype), ViewConditions(text, uncond, negative, text_with_camera), rng
    )
    source = (
        EditSource(drawn(count, 3, 4, 4), prior.encode_prompt(["before"] * count)) if objective.needs_source else None
    )
    return replace(batch, progress=progress, t_min=0.1, source=source, regions=_half_masks(objective, prior, x))


def _half_masks(objective: Objective, prior: GaussianMixturePrior, x: Float[Tensor, "B C h w"]) -> RegionMasks | None:
    """The left and the right half, with a latent of neither and one of both."""
    if not objective.needs_regions:
        return None
    masks = torch.zeros(2, len(x), *x.shape[2:], dtype=x.dtype)
    masks[0, ..., :2], masks[1, ..., 2:] = 1, 1
    masks[0, :, 0, 0], masks[0, :, 0, 3] = 0, 1
    return RegionMasks(masks, tuple(prior.encode_prompt([text] * len(x)) for text in ("left", "right")))


def _global_rng_state() -> dict[str, object]:
    """The state of generators that code may draw from without saying so, by the name of their module."""
    _, keys, *place = np.random.get_state()
    numpy_state = (np.asarray(keys).tobytes(), *place)
    return {"torch": torch.get_rng_state().numpy().tobytes(), "numpy.random": numpy_state}


@contextmanager
def _track_python_random() -> Iterator[list[str]]:
    """Notes who draws from Python's global generator inside. Its state would not tell: the type checker that tests may
    run under draws from it to choose which elements it looks at."""
    draws: list[str] = []
    shared, before = random.random.__self__, sys.getprofile()  # type: ignore[attr-defined]

    def watch(frame: FrameType, event: str, function: object) -> None:
        ours = event == "c_call" and getattr(function, "__self__", None) is shared
        if ours and not frame.f_code.co_filename.startswith("<@beartype("):
            draws.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        yield draws
    finally:
        sys.setprofile(before)


def _iter_tensors(value: object) -> Iterator[Tensor]:
    """Every tensor inside records and tuples of records."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _iter_tensors(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from _iter_tensors(getattr(value, item.name))
