"""The scene of splats: it learns, grows within its bounds, and goes on from a checkpoint as if never stopped."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from renderers import kernels
from renderers.cameras import Cameras, look_at_origin
from renderers.optimizer_rows import replace_rows
from renderers.splats.config import SplatConfig
from renderers.splats.gaussians import Gaussians
from renderers.splats.rasterization import rasterize
from renderers.splats.scene import SplatScene

SMALL = SplatConfig(init_count=400, cap_max=900)


def target() -> Gaussians:
    """A bumpy shell of 300 coloured splats."""
    chance = torch.Generator().manual_seed(3)
    direction = functional.normalize(torch.randn(300, 3, generator=chance), dim=-1)
    return Gaussians(
        direction * (0.5 + 0.1 * torch.sin(5 * direction[:, :1])),
        torch.randn(300, 4, generator=chance),
        0.06 * torch.exp(0.3 * torch.randn(300, 3, generator=chance)),
        0.5 + 0.45 * torch.rand(300, generator=chance),
        0.5 + 0.5 * torch.sin(6 * direction + torch.tensor([0.0, 2.0, 4.0])),
    )


def looks(chance: torch.Generator, views: int = 4, size: int = 48) -> Cameras:
    azimuth, elevation = torch.rand(2, views, generator=chance)
    return look_at_origin(2 * math.pi * azimuth, 1.5 * (elevation - 0.4), size)


def built(knobs: SplatConfig = SMALL) -> tuple[SplatScene, Adam]:
    scene = knobs.build("cpu", torch.Generator().manual_seed(1))
    return scene, Adam(scene.param_groups(0.0), fused=True)


def train(scene: SplatScene, adam: Adam, steps: range, of: int) -> None:
    """Steps towards pictures of the target; all chance of a step comes from its number."""
    truth = target()
    for step in steps:
        progress = step / of
        for group, now in zip(adam.param_groups, scene.param_groups(progress), strict=True):
            group["lr"] = now["lr"]
        chance = torch.Generator().manual_seed(step)
        cameras, background = looks(chance), torch.rand(4, 3, generator=chance)
        frame = scene.render(cameras, background)
        loss = functional.mse_loss(frame.rgb, rasterize(truth, cameras, background).rgb) + scene.regularization_loss(
            frame
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        scene.post_step(progress, frame, adam)


@torch.no_grad()
def psnr(scene: SplatScene) -> float:
    cameras, black = looks(torch.Generator().manual_seed(77), 8), torch.zeros(8, 3)
    error = functional.mse_loss(scene.render(cameras, black).rgb, rasterize(target(), cameras, black).rgb)
    return float(-10 * error.log10())


def test_it_learns_a_shape_from_its_pictures() -> None:
    scene, adam = built()
    before = psnr(scene)
    train(scene, adam, range(150), 150)
    assert before < 20
    assert psnr(scene) > 28
    assert scene.failure_reason() is None


def test_the_start_is_a_faint_grey_ball() -> None:
    scene, _ = built(replace(SMALL, init_radius=0.5))
    splats = scene.gaussians(looks(torch.Generator(), 1))
    assert splats.means.norm(dim=-1).max() <= 0.5
    inner = (splats.means.norm(dim=-1) < 0.25).float().mean()
    assert inner > 0.2  # a ball of even density has an eighth
    torch.testing.assert_close(splats.opacities, torch.full((400,), 0.1))
    assert (splats.colors - 0.5).abs().max() < 0.1
    frame = scene.render(looks(torch.Generator()), torch.zeros(4, 3))
    assert 0.05 < frame.alpha.mean() < 0.9


def test_the_same_seed_builds_the_same_scene() -> None:
    a, b = built()[0].training_state(), built()[0].training_state()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_grows_to_the_cap_and_never_beyond() -> None:
    scene, adam = built()
    sizes = []
    for step in range(40):
        train(scene, adam, range(step, step + 1), 40)
        sizes.append(len(scene))
        assert all(len(getattr(scene, group["name"])) == len(scene) for group in scene.param_groups(0.5))
        assert len(scene.pull) == len(scene.pictures) == len(scene)
    assert sizes[3] == 400
    assert max(sizes) == 900
    assert sizes[-1] <= 900


@pytest.mark.parametrize(
    "knobs",
    [SMALL, replace(SMALL, primitive="surfels", lambda_normal=0.1, lambda_distortion=0.1)],
    ids=lambda knobs: knobs.primitive,
)
def test_a_checkpoint_goes_on_bit_for_bit(knobs: SplatConfig) -> None:
    """Stopped between two rounds of growing, saved as bytes, and restored into a scene of another size."""
    if knobs.primitive == "surfels" and kernels.library() is None:
        pytest.skip(kernels.why_missing())
    scene, adam = built(knobs)
    train(scene, adam, range(11), 30)
    assert scene.rounds > 0
    assert scene.pictures.any()
    saved, moments = save(scene.training_state()), deepcopy(adam.state_dict())
    train(scene, adam, range(11, 30), 30)

    other = knobs.build("cpu", torch.Generator().manual_seed(99))
    other.load_training_state(load(saved))
    resumed = Adam(other.param_groups(0.0), fused=True)
    resumed.load_state_dict(moments)
    train(other, resumed, range(11, 30), 30)
    a, b = scene.training_state(), other.training_state()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_saved_scene_that_does_not_fit_is_refused() -> None:
    scene, _ = built()
    state = scene.training_state()
    with pytest.raises(ValueError, match="lack quats"):
        scene.load_training_state({name: value for name, value in state.items() if name != "quats"})
    with pytest.raises(ValueError, match="1 colour coefficients, but sh_degree 1 has 4"):
        built(replace(SMALL, sh_degree=1))[0].load_training_state(state)


def test_the_state_of_the_optimiser_follows_its_rows() -> None:
    old = nn.Parameter(torch.arange(8.0).reshape(4, 2))
    adam = Adam([{"params": [old], "name": "x"}], lr=0.1)
    old.grad = torch.arange(8.0).reshape(4, 2) + 1
    adam.step()
    first, second = adam.state[old]["exp_avg"].clone(), adam.state[old]["exp_avg_sq"].clone()
    new = replace_rows(adam, old, torch.zeros(3, 2), torch.tensor([2, -1, 0]))
    assert adam.param_groups[0]["params"][0] is new
    assert old not in adam.state
    zero = torch.zeros(2)
    assert torch.equal(adam.state[new]["exp_avg"], torch.stack([first[2], zero, first[0]]))
    assert torch.equal(adam.state[new]["exp_avg_sq"], torch.stack([second[2], zero, second[0]]))
    assert adam.state[new]["step"] == 1
    with pytest.raises(ValueError, match="does not hold"):
        replace_rows(adam, old, torch.zeros(3, 2), torch.tensor([2, -1, 0]))


def seen_once(scene: SplatScene, adam: Adam, progress: float) -> None:
    """A step that changes nothing, then `post_step`."""
    frame = scene.render(looks(torch.Generator().manual_seed(0)), torch.zeros(4, 3))
    frame.rgb.square().sum().backward()
    adam.zero_grad()
    scene.post_step(progress, frame, adam)


def test_faint_and_far_splats_go() -> None:
    scene, adam = built(replace(SMALL, grow_fraction=0.0))
    with torch.no_grad():
        scene.logit_opacities[:30] = -5.0
        scene.means[30:50] = torch.tensor([0.0, 1.3, 0.0])
    kept = scene.means[50:].detach().clone()
    seen_once(scene, adam, 0.2)
    assert torch.equal(scene.means, kept)


def test_pruning_ends_at_last_and_growing_before() -> None:
    scene, adam = built()
    seen_once(scene, adam, 0.99)
    assert len(scene) == 400
    with torch.no_grad():
        scene.logit_opacities[:30] = -5.0
    seen_once(scene, adam, 1.0)
    assert len(scene) == 400


def test_dividing_hardly_changes_the_picture() -> None:
    """Clones share the opacity of their parent; the picture stays close while every fifth splat becomes two."""
    scene, adam = built(replace(SMALL, init_count=600, grow_scale3d=1.0))
    cameras, black = looks(torch.Generator().manual_seed(2)), torch.zeros(4, 3)
    before = scene.render(cameras, black).rgb.detach()
    seen_once(scene, adam, 0.2)
    assert len(scene) == 720
    after = scene.render(cameras, black).rgb.detach()
    assert (after - before).abs().mean() < 0.04 * before.mean()


def test_large_splats_are_split_into_smaller_ones() -> None:
    scene, adam = built(replace(SMALL, grow_scale3d=0.005))
    largest = scene.log_scales.detach().amax()
    seen_once(scene, adam, 0.2)
    assert len(scene) == 480
    smaller = (scene.log_scales < largest - 0.4).all(-1)
    assert int(smaller.sum()) == 160
    torch.testing.assert_close(scene.log_scales[smaller], torch.full((160, 3), float(largest) - math.log(1.6)))


def test_settling_keeps_every_value_in_range() -> None:
    scene, adam = built()
    with torch.no_grad():
        scene.log_scales[0], scene.log_scales[1] = 5.0, -50.0
        scene.quats[2] *= 7
        scene.sh[3] = 100.0
    seen_once(scene, adam, 0.0)
    scales = scene.log_scales.exp()
    assert scales.min().item() == pytest.approx(SMALL.min_scale)
    assert scales.max().item() == pytest.approx(SMALL.max_scale)
    torch.testing.assert_close(scene.quats.norm(dim=-1), torch.ones(400))
    assert scene.gaussians(looks(torch.Generator(), 1)).colors.max().item() == pytest.approx(1.0)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_every_parameter_gets_a_gradient(degree: int) -> None:
    scene, _ = built(replace(SMALL, sh_degree=degree))
    with torch.no_grad():
        scene.log_scales[:, 0] += 1.0  # a round splat has no orientation
    frame = scene.render(looks(torch.Generator().manual_seed(0)), torch.zeros(4, 3))
    (frame.rgb * torch.rand_like(frame.rgb)).sum().backward()
    for group in scene.param_groups(0.5):
        gradient = group["params"][0].grad
        assert gradient.isfinite().all()
        assert gradient.flatten(1).any(-1).float().mean() > 0.9 if gradient.ndim > 1 else gradient.any()
    assert scene.sh.grad is not None
    assert scene.sh.grad.any(0).all()


def test_penalties_have_their_closed_forms() -> None:
    scene, _ = built(replace(SMALL, lambda_sparsity=2.0, lambda_entropy=3.0, lambda_anisotropy=5.0))
    frame = scene.render(looks(torch.Generator().manual_seed(0)), torch.zeros(4, 3))
    nats = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    expected = 2 * float(frame.alpha.detach().mean()) + 3 * nats
    assert scene.regularization_loss(frame).item() == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        scene.log_scales[:100, 0] += math.log(16)
    assert scene.regularization_loss(frame).item() == pytest.approx(expected + 5 * 0.25 * math.log(2) ** 2, rel=1e-4)


def spoil_nan(scene: SplatScene) -> None:
    scene.sh[3, 0, 1] = math.nan


def spoil_opacity(scene: SplatScene) -> None:
    scene.logit_opacities.fill_(-9.0)


def spoil_means(scene: SplatScene) -> None:
    scene.means.mul_(10.0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_nan, "1 values of sh are not finite"), (spoil_opacity, "transparent"), (spoil_means, "exploded")],
)
def test_what_is_wrong_is_named(spoil: object, words: str) -> None:
    scene, _ = built()
    assert scene.failure_reason() is None
    assert callable(spoil)
    with torch.no_grad():
        spoil(scene)
    assert words in (scene.failure_reason() or "")


def test_looking_away_is_noticed() -> None:
    scene, adam = built()
    away = look_at_origin(torch.zeros(1), torch.zeros(1), 32)
    away.c2w[:, :3, 3] *= -1
    scene.post_step(0.0, scene.render(away, torch.zeros(1, 3)), adam)
    assert "no splat" in (scene.failure_reason() or "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"init_count": 0}, "1 <= init_count"),
        ({"init_count": 9000}, "cap_max 8000"),
        ({"sh_degree": 4}, "choose 0 to 3"),
        ({"min_scale": 0.5}, "min_scale < max_scale"),
        ({"init_opacity": 1.0}, "between 0 and 1"),
        ({"refine_start": 0.8}, "refine_start < refine_stop"),
    ],
)
def test_knobs_that_cannot_be_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(SplatConfig(), **change)  # type: ignore[arg-type]


def moments_of(adam: Adam, parameter: Tensor) -> Tensor:
    return adam.state[parameter]["exp_avg"]


def test_growing_keeps_the_moments_of_parents_and_starts_children_from_zero() -> None:
    scene, adam = built()
    train(scene, adam, range(7), 40)  # the first round is at step 7
    before = {group["name"]: moments_of(adam, group["params"][0]).clone() for group in adam.param_groups}
    with torch.no_grad():
        for group in adam.param_groups:
            group["lr"] = 0.0
    scene.post_step(7 / 40, scene.render(looks(torch.Generator()), torch.zeros(4, 3)), adam)
    grown = len(scene) - 400
    assert grown == 80
    for name, moments in before.items():
        after = moments_of(adam, getattr(scene, name))
        assert not after[-grown:].any()
        torch.testing.assert_close(after.sum(0), moments.sum(0), rtol=1e-4, atol=1e-6)


def test_small_splats_fade_from_afar_if_antialiased() -> None:
    """Of a splat smaller than a pixel, the alpha of the picture stays what it was; the usual way shows more."""
    knobs = SplatConfig(init_count=1, init_radius=0.02, min_scale=1e-4, init_opacity=0.9)
    covered = {}
    for antialiased in (False, True):
        scene = replace(knobs, antialiased=antialiased).build("cpu", torch.Generator().manual_seed(1))
        near, far = (look_at_origin(torch.zeros(1), torch.zeros(1), size, distance=2.5) for size in (1024, 32))
        with torch.no_grad():
            seen = [float(scene.render(look, torch.zeros(1, 3)).alpha.mean()) for look in (near, far)]
        covered[antialiased] = seen[1] / seen[0]
    assert covered[True] == pytest.approx(1, abs=0.25)
    assert covered[False] > 3 * covered[True]


def test_pulls_that_cancel_count_if_absolute() -> None:
    """A loss whose gradient has both signs on every splat pulls more where sizes are added, and never less."""
    pulls = []
    for absolute in (False, True):
        scene, adam = built(replace(SMALL, absgrad=absolute, refine_start=0.9, refine_stop=1.0))
        frame = scene.render(looks(torch.Generator().manual_seed(2)), torch.zeros(4, 3))
        frame.rgb.square().mean().backward()
        scene.post_step(0.0, frame, adam)
        pulls.append(scene.pull)
    assert (pulls[1] >= pulls[0] - 1e-6).all()
    assert pulls[1].sum() > 1.2 * pulls[0].sum()
