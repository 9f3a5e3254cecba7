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
from guidance.objectives.base import Objective, ObjectiveInfo, ObjectiveOutput, ViewBatch
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.variational.vsd import VSD
from guidance.priors.base import Denoiser, add_noise
from guidance.testing.objective_checks import ObjectiveChecks

CHECKS = [name for name in vars(ObjectiveChecks) if name.startswith("test_")]
OTHERWISE: dict[str, Objective] = {
    "sds-rescaled": SDS(20, "reconstruction", guidance_rescale=0.7),
    "ism-rescaled": ISM(20, guidance_rescale=0.7),
    "vsd-rescaled": VSD(20, guidance_rescale=1.0),
    "asd-rescaled": ASD(20, guidance_rescale=0.7),
    "sjc-raw": SJC(variance_reduced=False),
    "csd-shape": CSD(weighting="uniform", negative_weight=(0, -1), uncond_weight=(-1, 0), ramp_end=0.5),
    "csd-texture": CSD(negative_weight=(-1, -0.5), uncond_weight=(0, -0.5)),
    "csd-noise": CSD(uncond_weight=(0, -0.5), noise_weight=(-1, -0.5)),
    "asd-steady": ASD(plus_ratio=0.3, plus_random=False),
    "nfsd-late": NFSD(t_switch=0.5),
    "bsd-auto": BSD("auto"),
    "bsd-points": BSD("points", text_weight=3.0),
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
def test_every_built_in_objective_has_info(name: str) -> None:
    assert OBJECTIVES[name].info is not None


# --- from elsewhere ---

PLUGIN = '''
from dataclasses import dataclass
from guidance.objectives.base import Objective, ObjectiveOutput, ViewBatch
from guidance.priors.base import Denoiser, add_noise
from guidance.priors.cfg import classifier_free_guidance

@dataclass(frozen=True)
class Zesty(Objective):
    """Scores, with zest."""
    zest: float = 3.0

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        x_t = add_noise(batch.latents, batch.noise, *prior.alpha_sigma(batch.t))
        uncond, text = prior.predict_noise(x_t, batch.t, [batch.conditions.uncond, batch.conditions.text])
        return ObjectiveOutput(classifier_free_guidance(uncond, text, self.zest) - batch.noise)
'''


@cache
def failed_checks(cls: type[Objective]) -> set[str]:
    """The checks that objectives of a class do not pass."""

    class Checks(ObjectiveChecks):
        def objective(self) -> Objective:
            return cls()

    names = set()
    for name in CHECKS:
        try:
            getattr(Checks(), name)()
        except Exception:  # whatever a broken objective does
            names.add(name)
    return names


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module outside the repository that can be imported."""
    (tmp_path / "zesty_objective.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "zesty_objective", raising=False)
    return "zesty_objective"


def test_module_class_objective_conforms(plugin: str) -> None:
    assert failed_checks(objective_class(f"{plugin}:Zesty")) == set()


def test_entry_point_objective_conforms(plugin: str, tmp_path: Path) -> None:
    """What pip leaves behind: a folder of metadata beside the module."""
    installed = tmp_path / "zesty_objective-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: zesty-objective\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[sds3d.objectives]\nzesty = {plugin}:Zesty\n")
    assert "zesty" in objective_names()
    kind = objective_class("zesty")
    assert kind.__module__ == plugin
    assert failed_checks(kind) == set()


# --- who does not keep to it ---


def noise_residual(prior: Denoiser, view: ViewBatch) -> torch.Tensor:
    x_t = add_noise(view.latents, view.noise, *prior.alpha_sigma(view.t))
    return prior.predict_noise(x_t, view.t, [view.conditions.text])[0] - view.noise


@dataclass(frozen=True)
class Conforming(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch))


class NotFrozen(Objective):
    scale: float = 1.0

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(self.scale * noise_residual(prior, batch))


@dataclass(frozen=True)
class WithoutDefault(Objective):
    scale: float

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(self.scale * noise_residual(prior, batch))


@dataclass(frozen=True)
class Stateful(Objective):
    calls: float = 0

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        object.__setattr__(self, "calls", self.calls + 1)
        return ObjectiveOutput(noise_residual(prior, batch) / self.calls)


@dataclass(frozen=True)
class UsesTorchRng(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, replace(batch, noise=torch.randn_like(batch.noise))))


@dataclass(frozen=True)
class UsesPythonRng(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(random.uniform(0.9, 1.1) * noise_residual(prior, batch))


@dataclass(frozen=True)
class UsesNumpyRng(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(float(np.random.uniform(0.9, 1.1)) * noise_residual(prior, batch))


@dataclass(frozen=True)
class FixedBatchNoise(Objective):
    """The same noise for the first view of every batch."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(batch.noise.shape, generator=rng, dtype=batch.noise.dtype)
        return ObjectiveOutput(noise_residual(prior, replace(batch, noise=noise)))


@dataclass(frozen=True)
class NormalizesOverBatch(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        grad = noise_residual(prior, batch)
        return ObjectiveOutput(grad / grad.norm())


@dataclass(frozen=True)
class WrongShape(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch).sum(1, keepdim=True))


@dataclass(frozen=True)
class WrongDtype(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch).float())


@dataclass(frozen=True)
class NonFinite(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch) / (batch.progress - 1))


@dataclass(frozen=True)
class NotDetached(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, replace(batch, latents=batch.latents.clone().requires_grad_())))


@dataclass(frozen=True)
class ModifiesBatch(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        grad = noise_residual(prior, batch)
        batch.latents.sub_(grad)
        return ObjectiveOutput(grad)


@dataclass(frozen=True)
class RequiresGradMode(Objective):
    """Forgets that a run has gradients off."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        x = batch.latents.clone().requires_grad_()
        return ObjectiveOutput(
            torch.autograd.grad(noise_residual(prior, replace(batch, latents=x)).square().sum(), x)[0]
        )


@dataclass(frozen=True)
class TensorLogs(Objective):
    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch), {"t": batch.t.mean()})  # type: ignore[dict-item]


@dataclass(frozen=True)
class WrongInfo(Objective):
    info: ClassVar[ObjectiveInfo | None] = ObjectiveInfo("Modest", "nowhere", (1, 1), "1", "all", "")

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        noise_residual(prior, batch)
        return ObjectiveOutput(noise_residual(prior, batch))


@dataclass(frozen=True)
class UndeclaredNegative(Objective):
    """Asks about the negative prompt and does not say so."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        x_t = add_noise(batch.latents, batch.noise, *prior.alpha_sigma(batch.t))
        text, negative = prior.predict_noise(x_t, batch.t, [batch.conditions.text, batch.conditions.negative])
        return ObjectiveOutput(text - negative)


@dataclass(frozen=True)
class FalselyDeclaredNegative(Conforming):
    """Says that it asks."""

    @property
    def uses_negative_prompt(self) -> bool:
        return True


BROKEN: list[tuple[type[Objective], set[str]]] = [
    (NotFrozen, {"test_is_a_frozen_dataclass"}),
    (WithoutDefault, set(CHECKS)),
    (
        Stateful,
        {"test_hyperparameters_are_not_changed", "test_is_deterministic"},
    ),
    (UsesTorchRng, {"test_uses_no_global_rng", "test_is_deterministic"}),
    (UsesPythonRng, {"test_uses_no_global_rng", "test_is_deterministic"}),
    (UsesNumpyRng, {"test_uses_no_global_rng", "test_is_deterministic"}),
    (FixedBatchNoise, {"test_batch_equals_per_view"}),
    (NormalizesOverBatch, {"test_batch_equals_per_view"}),
    (WrongShape, {"test_grad_has_the_shape_of_the_latents"}),
    (WrongDtype, {"test_grad_has_the_shape_of_the_latents"}),
    (NonFinite, {"test_grad_has_the_shape_of_the_latents"}),
    (NotDetached, {"test_grad_has_the_shape_of_the_latents"}),
    (ModifiesBatch, {"test_view_batch_is_not_modified"}),
    (RequiresGradMode, {"test_works_without_grad"}),
    (TensorLogs, {"test_logs_are_finite"}),
    (UndeclaredNegative, {"test_negative_prompt_usage_is_declared"}),
    (FalselyDeclaredNegative, {"test_negative_prompt_usage_is_declared"}),
    (WrongInfo, {"test_number_of_forward_passes_matches_info", "test_info_is_complete"}),
]


def test_conforming_objective_passes_all_checks() -> None:
    assert failed_checks(Conforming) == set()


@pytest.mark.parametrize(("kind", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_each_defect_fails_its_check(kind: type[Objective], expected: set[str]) -> None:
    assert expected <= failed_checks(kind)


@dataclass(frozen=True)
class UsesImportedRandom(Objective):
    """Draws by a function that it has by its own name, and seldom."""

    def __call__(self, prior: Denoiser, critic: Denoiser, batch: ViewBatch) -> ObjectiveOutput:
        return ObjectiveOutput(noise_residual(prior, batch) * (randrange(1000) if batch.progress == 1 else 1))


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        (UsesTorchRng, "torch"),
        (UsesPythonRng, "random"),
        (UsesImportedRandom, "random"),
        (UsesNumpyRng, r"numpy\.random"),
    ],
)
def test_error_names_the_global_rng(kind: type[Objective], module: str) -> None:
    class Checks(ObjectiveChecks):
        def objective(self) -> Objective:
            return kind()

    with pytest.raises(AssertionError, match=rf"^it drew from the global generator of {module}; a view brings"):
        Checks().test_uses_no_global_rng()


def test_every_check_can_fail() -> None:
    noticed = set().union(*(failed_checks(kind) for kind, _ in BROKEN if kind is not WithoutDefault))
    assert noticed == set(CHECKS)
