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

from guidance.objectives.base import Objective, Regions, Source, Update, View, Wanted
from guidance.priors.base import Denoiser, generator
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.testing.oracles import ExactRatio, ExactStages, counted, toy

DTYPES = (torch.float32, torch.float64)
_TIMES = (0.3, 0.6, 0.9)


class ObjectiveChecks(ABC):
    """Inherit, say which objective, and run. `prior`, `critic` and `views` may be replaced where they do not suit."""

    @abstractmethod
    def objective(self) -> Objective:
        """The objective that is checked."""

    def prior(self, dtype: torch.dtype) -> Denoiser:
        """What the objective asks: exact, a flow-matching model and with stages if need be."""
        kind = self.objective()
        prior = toy(0, dtype, kind.needs_flow)
        return ExactStages(**vars(prior), first=toy(2, dtype, kind.needs_flow)) if kind.needs_stages else prior

    def critic(self, dtype: torch.dtype) -> Denoiser:
        """What it asks beside the prior if it needs a critic: exact for other data, and for ratios if need be."""
        kind = self.objective()
        critic = toy(1, dtype, kind.needs_flow)
        return ExactRatio(**vars(critic), prior=toy(0, dtype, kind.needs_flow)) if kind.needs_ratio else critic

    def views(self, dtype: torch.dtype) -> list[View]:
        """Noised looks at the start, the middle and the end of a run, three views each."""
        return [look(self.objective(), dtype, progress) for progress in (0.0, 0.5, 1.0)]

    def update(self, view: View, objective: Objective | None = None) -> Update:
        """The objective's answer to a view, with the roles that a run would give it."""
        objective = objective or self.objective()
        prior = self.prior(view.x.dtype)
        critic = self.critic(view.x.dtype) if objective.needs_critic else prior
        return objective(prior, critic, view)

    def test_it_is_a_frozen_record_of_its_values(self) -> None:
        objective = self.objective()
        kind = type(objective)
        assert is_dataclass(kind) and "__dataclass_params__" in vars(kind), f"{kind.__name__} is no dataclass itself"
        assert vars(kind)["__dataclass_params__"].frozen, f"{kind.__name__} is not frozen"
        assert replace(objective) == objective, "a copy with the same values is not equal"
        assert hash(replace(objective)) == hash(objective), "a copy with the same values has another hash"
        bare = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        assert not bare, f"{', '.join(bare)} need a default, so that a name is enough to choose {kind.__name__}"

    def test_its_values_stay_as_they_are(self) -> None:
        objective = self.objective()
        before = deepcopy(vars(objective))
        self.update(self.views(torch.float64)[1], objective)
        assert vars(objective) == before, "a call changed the objective"

    def test_the_gradient_fits_the_view(self) -> None:
        for dtype in DTYPES:
            views = self.views(dtype)
            ends = [replace(views[0], t=torch.full_like(views[0].t, time)) for time in (0.02, 0.98)]
            for view in views + ends:
                gradient = self.update(view).gradient
                where = f"{dtype}, t from {float(view.t.min()):.2f}, progress {view.progress}"
                assert gradient.shape == view.x.shape, (
                    f"shape {tuple(gradient.shape)} of {tuple(view.x.shape)}: {where}"
                )
                assert gradient.dtype == dtype, f"the gradient is {gradient.dtype}: {where}"
                assert gradient.device == view.x.device, f"the gradient is on {gradient.device}: {where}"
                assert not gradient.requires_grad, f"the gradient is not detached: {where}"
                assert bool(gradient.isfinite().all()), f"the gradient is not finite: {where}"

    def test_figures_are_finite_numbers(self) -> None:
        for view in self.views(torch.float64):
            for name, figure in self.update(view).logs.items():
                assert isinstance(figure, (int, float)), f"{name} is a {type(figure).__name__}, not a number"
                assert math.isfinite(figure), f"{name} is {figure}"

    def test_the_same_view_gives_the_same_update(self) -> None:
        objective = self.objective()
        view, other, _ = self.views(torch.float64)
        first = self.update(view, objective)
        self.update(other, objective)
        for again in (self.update(view, objective), self.update(view)):
            assert torch.equal(first.gradient, again.gradient), "the same view gave another gradient"
            assert first.logs == again.logs, "the same view gave other figures"

    def test_a_batch_is_its_views_one_by_one(self) -> None:
        for view in self.views(torch.float64):
            together = self.update(view).gradient
            for place in range(len(view.x)):
                alone = self.update(view.rows(torch.tensor([place]))).gradient[0]
                close = torch.allclose(together[place], alone, rtol=1e-7, atol=1e-9)
                assert close, f"view {place} is pulled otherwise alone than among others, at progress {view.progress}"

    def test_it_draws_no_chance_of_its_own(self) -> None:
        for view in self.views(torch.float64):
            before = _global_chance()
            with _draws_of_python() as draws:
                self.update(view)
            drawn = [name for name, state in _global_chance().items() if state != before[name]]
            told = ", ".join([*drawn, "random"] if draws else drawn)
            assert not told, f"it drew from the global generator of {told}; a view brings all chance along"

    def test_the_view_is_left_as_it_was(self) -> None:
        for view in self.views(torch.float64):
            before = list(_tensors(deepcopy(view)))
            self.update(view)
            after = list(_tensors(view))
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            assert same, f"a call changed the view, at progress {view.progress}"
            assert not any(tensor.requires_grad for tensor in after), "a call made the view require gradients"

    def test_it_works_with_gradients_off(self) -> None:
        view = self.views(torch.float64)[1]
        with torch.enable_grad():
            on = self.update(view).gradient
            assert torch.is_grad_enabled(), "a call switched gradients off"
        with torch.no_grad():
            off = self.update(view).gradient
            assert not torch.is_grad_enabled(), "a call switched gradients on"
        assert torch.equal(on, off), "the gradient changes where torch.no_grad() is on, as it is in a run"

    def test_its_questions_are_as_many_as_it_says(self) -> None:
        objective = self.objective()
        if objective.about is None:
            return
        fewest, most = objective.about.passes
        for view in self.views(torch.float64):
            for place in range(len(view.x)):
                of_prior: list[int] = []
                of_critic: list[int] = []
                prior = counted(self.prior(torch.float64), of_prior)
                critic = counted(self.critic(torch.float64), of_critic) if objective.needs_critic else prior
                objective(prior, critic, view.rows(torch.tensor([place])))
                when = f"at time {float(view.t[place]):.2f}"
                count, told = sum(of_prior), objective.about.critic
                assert fewest <= count <= most, f"{count} answers {when}; told {fewest} to {most}"
                assert sum(of_critic) == told, f"{sum(of_critic)} answers of the critic {when}; told {told}"

    def test_it_hears_the_negative_prompt_where_it_says_so(self) -> None:
        heard = False
        for view in self.views(torch.float64):
            without = replace(view, wanted=replace(view.wanted, negative=view.wanted.empty))
            heard |= not torch.equal(self.update(view).gradient, self.update(without).gradient)
        told = self.objective().hears_negative
        assert heard == told, (
            f"hears_negative is {told}; the negative prompt {'changes' if heard else 'leaves'} updates"
        )

    def test_what_it_tells_about_itself_is_complete(self) -> None:
        about = self.objective().about
        if about is None:
            return
        for name in ("title", "source", "scale", "times", "good_for"):
            text = getattr(about, name)
            assert text.strip() and "\n" not in text, f"{name} is {text!r}; expected one line"
        assert 0 <= about.passes[0] <= about.passes[1], f"passes are {about.passes}; expected fewest and most"


def look(objective: Objective, dtype: torch.dtype, progress: float) -> View:
    """Three views at three times; with what they were before, and with regions, only for an objective in need."""
    chance = generator(7 + round(progress * 100))
    prior, count = toy(0, dtype), len(_TIMES)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64).to(dtype)

    text = prior.read(["wanted"] * count)
    text = replace(text, camera=drawn(count, 2), image=drawn(count, 2, 3))
    empty, negative = prior.read([""] * count), prior.read(["unwanted"] * count)
    posed = replace(prior.read(["wanted"] * count), camera=drawn(count, 2))
    x = drawn(count, 3, 4, 4)
    view = View.drawn(x, torch.tensor(_TIMES, dtype=dtype), Wanted(text, empty, negative, posed), chance)
    source = Source(drawn(count, 3, 4, 4), prior.read(["before"] * count)) if objective.needs_source else None
    return replace(view, progress=progress, lowest=0.1, source=source, regions=_halves(objective, prior, x))


def _halves(objective: Objective, prior: ToyPrior, x: Float[Tensor, "B C h w"]) -> Regions | None:
    """The left and the right half, with a latent of neither and one of both."""
    if not objective.needs_regions:
        return None
    masks = torch.zeros(2, len(x), *x.shape[2:], dtype=x.dtype)
    masks[0, ..., :2], masks[1, ..., 2:] = 1, 1
    masks[0, :, 0, 0], masks[0, :, 0, 3] = 0, 1
    return Regions(masks, tuple(prior.read([text] * len(x)) for text in ("left", "right")))


def _global_chance() -> dict[str, object]:
    """The state of generators that code may draw from without saying so, by the name of their module."""
    _, keys, *place = np.random.get_state()
    numpy_state = (np.asarray(keys).tobytes(), *place)
    return {"torch": torch.get_rng_state().numpy().tobytes(), "numpy.random": numpy_state}


@contextmanager
def _draws_of_python() -> Iterator[list[str]]:
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


def _tensors(thing: object) -> Iterator[Tensor]:
    """Every tensor inside records and tuples of records."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, tuple):
        for part in thing:
            yield from _tensors(part)
    elif is_dataclass(thing):
        for part in fields(thing):
            yield from _tensors(getattr(thing, part.name))
