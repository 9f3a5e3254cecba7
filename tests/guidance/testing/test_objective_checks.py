"""Every objective keeps to the contract; so do a stranger's, and the checks notice who does not."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import randrange
from typing import ClassVar

import numpy as np
import pytest
import torch

from configs.registry import OBJECTIVES, objective_class, objective_names
from guidance.objectives.base import About, Objective, Update, View
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Denoiser, noised
from guidance.testing.objective_checks import ObjectiveChecks

CHECKS = [name for name in vars(ObjectiveChecks) if name.startswith("test_")]
OTHERWISE: dict[str, Objective] = {
    "sds-rescaled": SDS(20, "reconstruction", rescale=0.7),
    "ism-rescaled": ISM(20, rescale=0.7),
    "vsd-rescaled": VSD(20, rescale=1.0),
    "asd-rescaled": ASD(20, rescale=0.7),
    "sjc-raw": SJC(variance_reduced=False),
    "csd-shape": CSD(weighting="uniform", negative=(0, -1), empty=(-1, 0), until=0.5),
    "csd-texture": CSD(negative=(-1, -0.5), empty=(0, -0.5)),
    "csd-noise": CSD(empty=(0, -0.5), noise=(-1, -0.5)),
    "asd-steady": ASD(plus_ratio=0.3, plus_random=False),
    "nfsd-late": NFSD(switch=0.5),
    "bsd-auto": BSD("auto"),
    "bsd-points": BSD("points", strength=3.0),
    "regions-mean": RegionSDS(composition="mean"),
}
"""Built-in objectives with other values than they come with."""


class TestBuiltIn(ObjectiveChecks):
    @pytest.fixture(autouse=True, params=[*OBJECTIVES, *OTHERWISE])
    def chosen(self, request: pytest.FixtureRequest) -> None:
        self.name = str(request.param)

    def objective(self) -> Objective:
        return OTHERWISE[self.name] if self.name in OTHERWISE else OBJECTIVES[self.name]()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_built_in_objective_tells_about_itself(name: str) -> None:
    assert OBJECTIVES[name].about is not None


# --- from elsewhere ---

PLUGIN = '''
from dataclasses import dataclass
from guidance.objectives.base import Objective, Update, View, guided
from guidance.priors.base import Denoiser, noised

@dataclass(frozen=True)
class Zesty(Objective):
    """Scores, with zest."""
    zest: float = 3.0

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        x_t = noised(view.x, view.noise, *prior.levels(view.t))
        empty, text = prior.predict(x_t, view.t, [view.wanted.empty, view.wanted.text])
        return Update(guided(empty, text, self.zest) - view.noise)
'''


@cache
def failed(kind: type[Objective]) -> set[str]:
    """The checks that objectives of a class do not pass."""

    class Checks(ObjectiveChecks):
        def objective(self) -> Objective:
            return kind()

    found = set()
    for name in CHECKS:
        try:
            getattr(Checks(), name)()
        except Exception:  # whatever a broken objective does
            found.add(name)
    return found


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module outside the repository that can be imported."""
    (tmp_path / "zesty_objective.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "zesty_objective", raising=False)
    return "zesty_objective"


def test_an_objective_from_elsewhere_conforms(plugin: str) -> None:
    assert failed(objective_class(f"{plugin}:Zesty")) == set()


def test_an_installed_objective_conforms(plugin: str, tmp_path: Path) -> None:
    """What pip leaves behind: a folder of metadata beside the module."""
    installed = tmp_path / "zesty_objective-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: zesty-objective\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[sds3d.objectives]\nzesty = {plugin}:Zesty\n")
    assert "zesty" in objective_names()
    kind = objective_class("zesty")
    assert kind.__module__ == plugin
    assert failed(kind) == set()


# --- who does not keep to it ---


def answer(prior: Denoiser, view: View) -> torch.Tensor:
    x_t = noised(view.x, view.noise, *prior.levels(view.t))
    return prior.predict(x_t, view.t, [view.wanted.text])[0] - view.noise


@dataclass(frozen=True)
class Sound(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view))


class Thawed(Objective):
    scale: float = 1.0

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(self.scale * answer(prior, view))


@dataclass(frozen=True)
class Demanding(Objective):
    scale: float

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(self.scale * answer(prior, view))


@dataclass(frozen=True)
class Remembering(Objective):
    calls: float = 0

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        object.__setattr__(self, "calls", self.calls + 1)
        return Update(answer(prior, view) / self.calls)


@dataclass(frozen=True)
class Drawing(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, replace(view, noise=torch.randn_like(view.noise))))


@dataclass(frozen=True)
class Rolling(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(random.uniform(0.9, 1.1) * answer(prior, view))


@dataclass(frozen=True)
class Jittering(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(float(np.random.uniform(0.9, 1.1)) * answer(prior, view))


@dataclass(frozen=True)
class Seeded(Objective):
    """The same noise for the first view of every batch."""

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        chance = torch.Generator().manual_seed(0)
        noise = torch.randn(view.noise.shape, generator=chance, dtype=view.noise.dtype)
        return Update(answer(prior, replace(view, noise=noise)))


@dataclass(frozen=True)
class Crowding(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        gradient = answer(prior, view)
        return Update(gradient / gradient.norm())


@dataclass(frozen=True)
class Summed(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view).sum(1, keepdim=True))


@dataclass(frozen=True)
class Single(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view).float())


@dataclass(frozen=True)
class Dividing(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view) / (view.progress - 1))


@dataclass(frozen=True)
class Attached(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, replace(view, x=view.x.clone().requires_grad_())))


@dataclass(frozen=True)
class Spoiling(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        gradient = answer(prior, view)
        view.x.sub_(gradient)
        return Update(gradient)


@dataclass(frozen=True)
class Differentiating(Objective):
    """Forgets that a run has gradients off."""

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        x = view.x.clone().requires_grad_()
        return Update(torch.autograd.grad(answer(prior, replace(view, x=x)).square().sum(), x)[0])


@dataclass(frozen=True)
class Chatty(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view), {"t": view.t.mean()})  # type: ignore[dict-item]


@dataclass(frozen=True)
class Modest(Objective):
    about: ClassVar[About | None] = About("Modest", "nowhere", (1, 1), "1", "all", "")

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        answer(prior, view)
        return Update(answer(prior, view))


@dataclass(frozen=True)
class Whispering(Objective):
    """Asks about the negative prompt and does not say so."""

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        x_t = noised(view.x, view.noise, *prior.levels(view.t))
        text, negative = prior.predict(x_t, view.t, [view.wanted.text, view.wanted.negative])
        return Update(text - negative)


@dataclass(frozen=True)
class Boasting(Sound):
    """Says that it asks."""

    @property
    def hears_negative(self) -> bool:
        return True


BROKEN: list[tuple[type[Objective], set[str]]] = [
    (Thawed, {"test_it_is_a_frozen_record_of_its_values"}),
    (Demanding, set(CHECKS)),
    (
        Remembering,
        {"test_its_values_stay_as_they_are", "test_the_same_view_gives_the_same_update"},
    ),
    (Drawing, {"test_it_draws_no_chance_of_its_own", "test_the_same_view_gives_the_same_update"}),
    (Rolling, {"test_it_draws_no_chance_of_its_own", "test_the_same_view_gives_the_same_update"}),
    (Jittering, {"test_it_draws_no_chance_of_its_own", "test_the_same_view_gives_the_same_update"}),
    (Seeded, {"test_a_batch_is_its_views_one_by_one"}),
    (Crowding, {"test_a_batch_is_its_views_one_by_one"}),
    (Summed, {"test_the_gradient_fits_the_view"}),
    (Single, {"test_the_gradient_fits_the_view"}),
    (Dividing, {"test_the_gradient_fits_the_view"}),
    (Attached, {"test_the_gradient_fits_the_view"}),
    (Spoiling, {"test_the_view_is_left_as_it_was"}),
    (Differentiating, {"test_it_works_with_gradients_off"}),
    (Chatty, {"test_figures_are_finite_numbers"}),
    (Whispering, {"test_it_hears_the_negative_prompt_where_it_says_so"}),
    (Boasting, {"test_it_hears_the_negative_prompt_where_it_says_so"}),
    (Modest, {"test_its_questions_are_as_many_as_it_says", "test_what_it_tells_about_itself_is_complete"}),
]


def test_a_sound_objective_passes_all() -> None:
    assert failed(Sound) == set()


@pytest.mark.parametrize(("kind", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_objective_is_noticed(kind: type[Objective], expected: set[str]) -> None:
    assert expected <= failed(kind)


@dataclass(frozen=True)
class Gambling(Objective):
    """Draws by a function that it has by its own name, and seldom."""

    def __call__(self, prior: Denoiser, critic: Denoiser, view: View) -> Update:
        return Update(answer(prior, view) * (randrange(1000) if view.progress == 1 else 1))


@pytest.mark.parametrize(
    ("kind", "module"),
    [(Drawing, "torch"), (Rolling, "random"), (Gambling, "random"), (Jittering, r"numpy\.random")],
)
def test_it_is_said_whose_chance_was_drawn(kind: type[Objective], module: str) -> None:
    class Checks(ObjectiveChecks):
        def objective(self) -> Objective:
            return kind()

    with pytest.raises(AssertionError, match=rf"^it drew from the global generator of {module}; a view brings"):
        Checks().test_it_draws_no_chance_of_its_own()


def test_every_check_can_fail() -> None:
    noticed = set().union(*(failed(kind) for kind, _ in BROKEN if kind is not Demanding))
    assert noticed == set(CHECKS)
