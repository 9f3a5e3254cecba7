"""How splats come and go: held to gsplat's strategies row by row, and to what must not change."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from renderers.cameras import look_at_origin
from renderers.optimizer_rows import replace_rows
from renderers.splats import densification
from renderers.splats.config import SplatConfig
from renderers.splats.gaussians import RasterizationInfo

THEIRS = {"log_scales": "scales", "logit_opacities": "opacities"}
"""What gsplat calls ours, where the names differ."""


def chance(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(count: int = 60) -> dict[str, Tensor]:
    """Splats of all sizes and opacities; the last ten are all but transparent."""
    rng = chance(1)
    opacity = torch.rand(count, generator=rng) * 0.9 + 0.05
    opacity[-10:] = 0.001
    return {
        "means": torch.randn(count, 3, generator=rng),
        "log_scales": torch.randn(count, 3, generator=rng) * 0.5 - 3,
        "quats": functional.normalize(torch.randn(count, 4, generator=rng), dim=-1),
        "logit_opacities": opacity.logit(),
        "sh": torch.rand(count, 4, 3, generator=rng),
    }


class Theirs:
    """The same splats as gsplat wants them, each with an optimiser that has made a step."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        self.params = {THEIRS.get(name, name): nn.Parameter(value.clone()) for name, value in values.items()}
        self.optimizers = {name: Adam([parameter], lr=0.0) for name, parameter in self.params.items()}
        for name, adam in self.optimizers.items():
            self.params[name].grad = torch.randn(self.params[name].shape, generator=chance(2))
            adam.step()

    def moments(self, name: str) -> Tensor:
        name = THEIRS.get(name, name)
        return self.optimizers[name].state[self.params[name]]["exp_avg"]

    def agree(self, before: dict[str, Tensor], rows: densification.DensifiedRows) -> None:
        """The same rows in the same order, and the same moments of Adam."""
        for name, value in rows.values.items():
            torch.testing.assert_close(value, self.params[THEIRS.get(name, name)].data, rtol=2e-4, atol=1e-6)
            parameter = nn.Parameter(before[name].clone())
            adam = Adam([parameter], lr=0.0)
            parameter.grad = torch.randn(parameter.shape, generator=chance(2))
            adam.step()
            taken = replace_rows(adam, parameter, value, rows.origin)
            assert torch.equal(adam.state[taken]["exp_avg"], self.moments(name)), name


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Any:
    """gsplat's operations; its two CUDA kernels give way to its own torch code, and to the formula under test."""
    pytest.importorskip("gsplat")
    from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
    from gsplat.strategy import ops

    def compute_relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor) -> tuple[Tensor, Tensor]:
        return densification.compute_relocation(opacities, scales, ratios)

    monkeypatch.setattr(ops, "compute_relocation", compute_relocation)
    monkeypatch.setattr(ops, "quat_scale_to_covar_preci", _quat_scale_to_covar_preci)
    return ops


@pytest.mark.usefixtures("ops")
def test_thresholds_act_as_in_gsplat() -> None:
    """Its DefaultStrategy, from the gradients in two pictures to the rows after growing and pruning."""
    from gsplat import DefaultStrategy

    values, size = cloud(), 32
    theirs = Theirs(values)
    radii = torch.randint(0, 3, (2, 60), generator=chance(4), dtype=torch.int32)
    gradient = 1e-3 * torch.randn(2, 60, 2, generator=chance(3)) * (radii > 0)[..., None]
    landed = {"means2d": SimpleNamespace(grad=gradient), "radii": radii[..., None].expand(-1, -1, 2)}
    strategy = DefaultStrategy(grow_grad2d=0.02, grow_scale3d=0.05, prune_opa=0.02, refine_start_iter=-1)
    torch.manual_seed(7)
    info = {**landed, "width": size, "height": size, "n_cameras": 2, "gaussian_ids": None}
    strategy.step_post_backward(theirs.params, theirs.optimizers, strategy.initialize_state(), 0, info)

    knobs = SplatConfig(60, 500, 1, min_scale=1e-6, max_scale=1e6, grow_scale3d=0.05, prune_radius=9.0)
    scene = replace(knobs, strategy="threshold", grow_grad2d=0.02).build("cpu", chance())
    scene.load_training_state(scene.training_state() | values | {"generator": chance().get_state()})
    adam = Adam(scene.param_groups(0.0), lr=0.0)
    for group in adam.param_groups:
        group["lr"] = 0.0
        group["params"][0].grad = torch.randn(group["params"][0].shape, generator=chance(2))
    adam.step()
    frame = scene.render(look_at_origin(torch.zeros(2), torch.zeros(2), size), torch.zeros(2, 3))
    scene.post_step(0.5, replace(frame, info=RasterizationInfo(radii, gradient)), adam)
    assert len(scene) > 60
    assert scene.logit_opacities.sigmoid().min() >= 0.02
    for name in values:
        torch.testing.assert_close(getattr(scene, name).data, theirs.params[THEIRS.get(name, name)].data)
        assert torch.equal(adam.state[getattr(scene, name)]["exp_avg"], theirs.moments(name)), name


def test_the_faint_move_as_in_gsplat(ops: Any) -> None:
    values = cloud()
    theirs, dead = Theirs(values), values["logit_opacities"].sigmoid() <= 0.005
    torch.manual_seed(7)
    ops.relocate(theirs.params, theirs.optimizers, {}, dead, torch.zeros(51, 51))
    rows = densification.relocate(values, dead, 0.005, chance())
    assert int(dead.sum()) == 10
    theirs.agree(values, rows)


def test_more_are_drawn_as_in_gsplat(ops: Any) -> None:
    values = cloud()
    theirs = Theirs(values)
    torch.manual_seed(7)
    ops.sample_add(theirs.params, theirs.optimizers, {}, 25, torch.zeros(51, 51))
    theirs.agree(values, densification.sample_add(values, 25, 0.005, chance()))


def test_noise_falls_as_in_gsplat(ops: Any) -> None:
    values = cloud()
    theirs = Theirs(values)
    torch.manual_seed(7)
    ops.inject_noise_to_position(theirs.params, theirs.optimizers, {}, 3.0)
    moved = densification.inject_noise_to_position(values, 3.0, 0.005, chance())
    torch.testing.assert_close(moved, theirs.params["means"].data, rtol=1e-5, atol=1e-7)
    still = values["logit_opacities"].sigmoid() > 0.2
    assert torch.equal(moved[still], values["means"][still])
    assert not torch.equal(moved[~still], values["means"][~still])


@pytest.mark.parametrize("copies", [1, 2, 5, 51])
@pytest.mark.parametrize("opacity", [0.02, 0.5, 0.97])
def test_shares_show_together_what_one_did(copies: int, opacity: float) -> None:
    """In the middle, and in all along a line through it: by summing over the line."""
    share, scales = densification.compute_relocation(
        torch.tensor([opacity]), torch.tensor([[0.3, 0.1, 0.2]]), torch.tensor([copies])
    )
    assert 1 - (1 - share.item()) ** copies == pytest.approx(opacity, rel=1e-3)
    places = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    before = opacity * torch.exp(-0.5 * (places / 0.3) ** 2)
    after = 1 - (1 - share.double() * torch.exp(-0.5 * (places / scales[0, 0].double()) ** 2)) ** copies
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=2e-3)
    torch.testing.assert_close(scales / scales[0, 0] * 0.3, torch.tensor([[0.3, 0.1, 0.2]]))


def test_more_copies_than_counted_are_finite() -> None:
    share, scales = densification.compute_relocation(torch.tensor([0.9999]), torch.ones(1, 3), torch.tensor([10_000]))
    most = densification.compute_relocation(
        torch.tensor([0.9999]), torch.ones(1, 3), torch.tensor([densification.MAX_COPIES])
    )
    assert torch.equal(share, most[0]) and torch.equal(scales, most[1])
    assert bool(scales.isfinite().all()) and bool((scales > 0).all())


def test_where_all_are_dead_or_none_is_nothing_moves() -> None:
    values = cloud()
    for dead in (torch.zeros(60, dtype=torch.bool), torch.ones(60, dtype=torch.bool)):
        rows = densification.relocate(values, dead, 0.005, chance())
        assert torch.equal(rows.origin, torch.arange(60))
        assert all(torch.equal(rows.values[name], value) for name, value in values.items())


def test_none_to_divide_leaves_all_as_they_are() -> None:
    values, nobody = cloud(), torch.zeros(0, dtype=torch.long)
    for way in (densification.split_or_clone, densification.duplicate_and_split):
        rows = way(values, nobody, 0.04, chance())
        assert torch.equal(rows.origin, torch.arange(60))
        assert all(torch.equal(rows.values[name], value) for name, value in values.items())


def settled(knobs: SplatConfig, rounds: int) -> list[int]:
    """Sizes of a scene that is pulled about and settled so many times along its way."""
    scene = knobs.build("cpu", chance())
    adam, sizes = Adam(scene.param_groups(0.0), fused=True), []
    for step in range(rounds):
        looks = look_at_origin(torch.tensor([0.3 * step, 2.0]), torch.tensor([0.2, -0.3]), 24)
        frame = scene.render(looks, torch.zeros(2, 3))
        adam.zero_grad()
        ((frame.rgb - 0.7).square().sum() + scene.regularization_loss(frame)).backward()
        adam.step()
        scene.post_step(step / rounds, frame, adam)
        sizes.append(len(scene))
        assert scene.failure_reason() is None
        assert len(scene.pull) == len(scene.pictures) == len(scene)
    return sizes


@pytest.mark.parametrize("way", ["threshold", "mcmc"])
def test_every_way_grows_to_the_cap_and_never_beyond(way: Any) -> None:
    sizes = settled(SplatConfig(200, 320, strategy=way, grow_grad2d=1e-6, prune_opa=1e-3), 24)
    assert sizes[0] == 200
    assert max(sizes) == 320
    if way == "mcmc":
        assert sizes == sorted(sizes)  # none dies


def test_a_high_threshold_lets_nothing_grow() -> None:
    assert set(settled(SplatConfig(200, 320, strategy="threshold", grow_grad2d=1e9, prune_opa=1e-3), 24)) == {200}


def test_opacities_are_lowered_when_that_is_due() -> None:
    scene = SplatConfig(200, 200, strategy="threshold", reset_every=2, init_opacity=0.5, refine_start=0.0).build(
        "cpu", chance()
    )
    adam = Adam(scene.param_groups(0.0))
    looks = look_at_origin(torch.zeros(1), torch.zeros(1), 24)
    seen = []
    for progress in (0.075, 0.145):
        frame = scene.render(looks, torch.zeros(1, 3))
        adam.zero_grad()
        frame.alpha.sum().backward()
        adam.step()
        scene.post_step(progress, frame, adam)
        seen.append((scene.logit_opacities.sigmoid().max().item(), adam.state[scene.logit_opacities]["exp_avg"].any()))
    assert seen[0][0] > 0.4 and seen[0][1]
    assert seen[1][0] == pytest.approx(2 * 0.02, rel=1e-4)
    assert not seen[1][1]


def test_costs_have_their_closed_forms() -> None:
    scene = SplatConfig(100, 100, init_opacity=0.3, lambda_anisotropy=0.0, opacity_reg=2.0, scale_reg=3.0).build(
        "cpu", chance()
    )
    frame = scene.render(look_at_origin(torch.zeros(1), torch.zeros(1), 8), torch.zeros(1, 3))
    scale = math.exp(scene.log_scales[0, 0].item())
    assert scene.regularization_loss(frame).item() == pytest.approx(2 * 0.3 + 3 * scale, rel=1e-5)


@pytest.mark.parametrize("name", ["grow_grad2d", "noise_lr", "opacity_reg", "scale_reg"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_knobs_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        replace(SplatConfig(), **{name: value})
