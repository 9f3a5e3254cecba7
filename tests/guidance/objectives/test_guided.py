"""What every guided objective has in common: the negative prompt and the rescale, at any scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from configs.registry import OBJECTIVES
from guidance.objectives.base import Objective, View
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.guided import Guided
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import ToyPrior
from guidance.testing.objective_checks import ObjectiveChecks
from tests.support.guidance.gaussian_oracles import bare

GUIDED = [name for name, kind in OBJECTIVES.items() if issubclass(kind, Guided)]
SCALED = [name for name in GUIDED if name != "pg-sb"]
"""Those with one scale."""


@dataclass(frozen=True)
class Asked(ObjectiveChecks):
    """The kit's priors and views, asked by one objective."""

    rule: Objective

    def objective(self) -> Objective:
        return self.rule


def made(name: str, **knobs: float) -> Guided:
    rule = replace(OBJECTIVES[name](), **knobs)
    assert isinstance(rule, Guided)
    return rule


def update(rule: Objective, view: View) -> Tensor:
    return Asked(rule).update(view).gradient


def view_of(rule: Objective) -> View:
    return Asked(rule).views(torch.float64)[-1]


@pytest.mark.parametrize("name", SCALED)
def test_the_negative_prompt_is_what_the_text_is_told_apart_from(name: str) -> None:
    """Its part in the answer, and so in the gradient, is 1 - scale: none without guidance."""
    parts = []
    for scale in (1.0, 3.0, 5.0):
        rule = made(name, scale=scale)
        view = view_of(rule)
        parts.append(update(rule, view) - update(rule, bare(view)))
    assert parts[0].abs().max() < 1e-9 < parts[1].abs().max()
    torch.testing.assert_close(parts[2], 2 * parts[1])


@pytest.mark.parametrize("name", GUIDED)
def test_half_a_rescale_is_halfway(name: str) -> None:
    rule = made(name)
    view = view_of(rule)
    none, half, whole = (update(replace(rule, rescale=share), view) for share in (0.0, 0.5, 1.0))
    assert not torch.allclose(none, whole)
    torch.testing.assert_close(half, (none + whole) / 2)


@pytest.mark.parametrize("name", SCALED)
def test_without_guidance_there_is_nothing_to_bring_back(name: str) -> None:
    rule = made(name, scale=1.0)
    view = view_of(rule)
    torch.testing.assert_close(update(rule, view), update(replace(rule, rescale=1.0), view))


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=r"rescale is .*; expected a share from 0 to 1"):
        made(name, rescale=share)


def test_what_nobody_wants_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise-free distillation without a negative prompt takes one answer less, and the same gradient."""
    asked: list[int] = []
    predict = ToyPrior.predict

    def counted(self: ToyPrior, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        asked.append(len(conditions))
        return predict(self, x_t, t, conditions)

    monkeypatch.setattr(ToyPrior, "predict", counted)
    rule = NFSD()
    view = bare(view_of(rule))
    same = replace(view.wanted, negative=replace(view.wanted.empty))
    first, second = update(rule, view), update(rule, replace(view, wanted=same))
    torch.testing.assert_close(first, second)
    rows = update(rule, view.rows(torch.arange(len(view.x))))
    torch.testing.assert_close(first, rows)
    assert asked == [2, 3, 2]
