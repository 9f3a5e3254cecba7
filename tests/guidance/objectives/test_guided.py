"""What every guided objective has in common: the negative prompt and the rescale, at any scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from configs.registry import OBJECTIVES
from guidance.objectives.base import Objective, ViewBatch
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.guided import GuidedObjective
from guidance.priors.base import Condition
from guidance.priors.gaussian_mixture import GaussianMixturePrior
from guidance.testing.objective_checks import ObjectiveChecks
from tests.support.guidance.gaussian_oracles import without_negative

GUIDED = [name for name, kind in OBJECTIVES.items() if issubclass(kind, GuidedObjective)]
SCALED = [name for name in GUIDED if name != "pg-sb"]
"""Those with one scale."""


@dataclass(frozen=True)
class RecordingPrior(ObjectiveChecks):
    """The kit's priors and views, asked by one objective."""

    rule: Objective

    def objective(self) -> Objective:
        return self.rule


def make_objective(name: str, **config: float) -> GuidedObjective:
    rule = replace(OBJECTIVES[name](), **config)
    assert isinstance(rule, GuidedObjective)
    return rule


def update(rule: Objective, view: ViewBatch) -> Tensor:
    return RecordingPrior(rule).run_objective(view).grad


def view_of(rule: Objective) -> ViewBatch:
    return RecordingPrior(rule).view_batches(torch.float64)[-1]


@pytest.mark.parametrize("name", SCALED)
def test_cfg_uses_the_negative_prompt(name: str) -> None:
    """Its part in the answer, and so in the gradient, is 1 - scale: none without guidance."""
    parts = []
    for scale in (1.0, 3.0, 5.0):
        rule = make_objective(name, guidance_scale=scale)
        view = view_of(rule)
        parts.append(update(rule, view) - update(rule, without_negative(view)))
    assert parts[0].abs().max() < 1e-9 < parts[1].abs().max()
    torch.testing.assert_close(parts[2], 2 * parts[1])


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_rescale_is_linear(name: str) -> None:
    rule = make_objective(name)
    view = view_of(rule)
    none, half, whole = (update(replace(rule, guidance_rescale=share), view) for share in (0.0, 0.5, 1.0))
    assert not torch.allclose(none, whole)
    torch.testing.assert_close(half, (none + whole) / 2)


@pytest.mark.parametrize("name", SCALED)
def test_guidance_rescale_is_a_no_op_without_guidance(name: str) -> None:
    rule = make_objective(name, guidance_scale=1.0)
    view = view_of(rule)
    torch.testing.assert_close(update(rule, view), update(replace(rule, guidance_rescale=1.0), view))


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_rejects_guidance_rescale_outside_0_to_1(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=r"guidance_rescale is .*; expected a share from 0 to 1"):
        make_objective(name, guidance_rescale=share)


def test_unused_conditions_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise-free distillation without a negative prompt takes one answer less, and the same gradient."""
    calls: list[int] = []
    predict = GaussianMixturePrior.predict_noise

    def counted(self: GaussianMixturePrior, x_t: Tensor, t: Tensor, conditions: list[Condition]) -> Tensor:
        calls.append(len(conditions))
        return predict(self, x_t, t, conditions)

    monkeypatch.setattr(GaussianMixturePrior, "predict_noise", counted)
    rule = NFSD()
    view = without_negative(view_of(rule))
    same = replace(view.conditions, negative=replace(view.conditions.uncond))
    first, second = update(rule, view), update(rule, replace(view, conditions=same))
    torch.testing.assert_close(first, second)
    rows = update(rule, view.select(torch.arange(len(view.latents))))
    torch.testing.assert_close(first, rows)
    assert calls == [2, 3, 2]
