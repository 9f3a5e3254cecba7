"""The volume as a scene: it learns, grows finer, is lit by chance of its own, and goes on from a checkpoint."""

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

from renderers.cameras import Cameras, look_at_origin
from renderers.meshes.mesh import agreement
from renderers.meshing.extraction import MeshExtractionConfig, extract_mesh
from renderers.optimizer_rows import load_optimizer_state, optimizer_state
from renderers.volumes.config import NerfConfig
from renderers.volumes.occupancy import OccupancyGrid
from renderers.volumes.rays import VolumeOutput
from renderers.volumes.scene import NerfScene
from tests.support.renderers.known_shapes import Painted, ball

SMALL = NerfConfig(resolution=24, resolution_end=40, samples_per_diameter=64, occupancy_resolution=16, lambda_tv=0.0)
HASHED = replace(SMALL, field="hashed")
TARGET = Painted(ball(0.6, 24))


def eight(size: int = 32) -> Cameras:
    """Eight views of the target, from all around."""
    return look_at_origin(torch.arange(8) * 0.8, torch.tensor([-0.4, 0.5] * 4), size)


def built(knobs: NerfConfig = SMALL) -> tuple[NerfScene, Adam]:
    scene = knobs.build("cpu", torch.Generator().manual_seed(1))
    return scene, adam_of(scene)


def adam_of(scene: NerfScene, progress: float = 0.0) -> Adam:
    return Adam(scene.param_groups(progress), betas=(0.9, 0.99), fused=True)


def train(scene: NerfScene, adam: Adam, steps: range, of: int, behind: Tensor | None = None) -> None:
    """Steps towards four of eight pictures of a coloured ball; all chance of a step comes from its number."""
    looks = eight()
    for step in steps:
        for group, now in zip(adam.param_groups, scene.param_groups(step / of), strict=True):
            group["lr"] = now["lr"]
        chance = torch.Generator().manual_seed(step)
        some, background = looks[slice(step % 2, None, 2)], torch.rand(4, 3, generator=chance)
        frame = scene.render(some, background)
        shown = TARGET.render(some, background if behind is None else behind.expand(4, 3)).rgb
        loss = functional.mse_loss(frame.rgb, shown) + scene.regularization_loss(frame)
        adam.zero_grad()
        loss.backward()
        adam.step()
        scene.post_step(step / of, frame, adam)


@torch.no_grad()
def psnr(scene: NerfScene) -> float:
    """From where it was not trained."""
    looks, white = look_at_origin(torch.arange(5) * 1.3 + 0.2, torch.full((5,), 0.1), 32), torch.ones(5, 3)
    error = functional.mse_loss(scene.render(looks, white).rgb, TARGET.render(looks, white).rgb)
    return float(-10 * error.log10())


@pytest.mark.parametrize(("knobs", "bar"), [(SMALL, 24.0), (HASHED, 20.0)])
def test_it_learns_a_coloured_ball_from_eight_pictures(knobs: NerfConfig, bar: float) -> None:
    scene, adam = built(knobs)
    before = psnr(scene)
    train(scene, adam, range(80), 80)
    assert before < 17
    assert psnr(scene) > bar
    assert scene.failure_reason() is None
    assert scene.occupancy.occupied_fraction < 0.9


def test_it_becomes_a_mesh_that_looks_like_it() -> None:
    scene, adam = built()
    train(scene, adam, range(80), 80)
    mesh = extract_mesh(
        scene,
        MeshExtractionConfig(
            faces=2000, texture_size=128, resolution=48, views=6, silhouette_size=48, texture_render_size=128
        ),
    )
    match = agreement(scene, mesh)
    assert match.iou > 0.9
    assert mesh.surface.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.2)


@pytest.mark.parametrize(
    "knobs", [replace(SMALL, p_shaded=0.5, background_sh_degree=1, lambda_orient=0.01), replace(HASHED, init_levels=3)]
)
def test_it_goes_on_from_a_checkpoint_bit_for_bit(knobs: NerfConfig) -> None:
    scene, adam = built(knobs)
    train(scene, adam, range(13), 30)
    saved = load(
        save({**scene.training_state(), **{f"adam.{name}": value for name, value in optimizer_state(adam).items()}})
    )
    train(scene, adam, range(13, 24), 30)

    other = knobs.build("cpu", torch.Generator().manual_seed(99))
    other.load_training_state(saved)
    again = adam_of(other, 13 / 30)
    load_optimizer_state(again, {name[5:]: value for name, value in saved.items() if name.startswith("adam.")})
    train(other, again, range(13, 24), 30)
    one, two = scene.training_state(), other.training_state()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pictures_that_nothing_is_learned_from_draw_no_chance() -> None:
    scene, _ = built(replace(SMALL, p_shaded=1.0, shading_start=0.0))
    before = scene.generator.get_state()
    with torch.no_grad():
        first, second = (scene.render(eight(), torch.ones(8, 3)).rgb for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(scene.generator.get_state(), before)
    third, fourth = (scene.render(eight(), torch.ones(8, 3)).rgb for _ in range(2))
    assert not torch.equal(third, fourth)


def test_light_comes_when_it_is_due_and_takes_the_colour_from_some() -> None:
    scene, adam = built(replace(SMALL, p_shaded=1.0, p_textureless=1.0, shading_start=0.5))
    assert isinstance(scene.field.values, nn.Parameter)
    scene.field.values.data[..., 1:] = torch.tensor([3.0, -3.0, -3.0])

    def grey() -> bool:
        colour = scene.render(eight(), torch.zeros(8, 3)).rgb
        return bool((colour.amax(-1) - colour.amin(-1)).max() < 1e-4)

    assert not grey()
    frame = scene.render(eight(), torch.zeros(8, 3))
    scene.post_step(0.6, frame, adam)
    assert grey()


@pytest.mark.parametrize(
    "name",
    ["lambda_sparsity", "lambda_opaque", "lambda_orient", "lambda_distortion", "lambda_entropy", "lambda_tv"],
)
def test_a_penalty_weighs_as_much_as_its_knob_and_pulls_at_the_density(name: str) -> None:
    scene, _ = built(replace(SMALL, **{name: 0.5}))
    double = replace(SMALL, **{name: 1.0}).build("cpu", torch.Generator().manual_seed(1))
    frames = [each.render(eight(), torch.zeros(8, 3)) for each in (scene, double)]
    penalties = [each.regularization_loss(frame) for each, frame in zip((scene, double), frames, strict=True)]
    torch.testing.assert_close(2 * penalties[0], penalties[1])
    assert penalties[0] > 0
    penalties[0].backward()
    values = next(scene.field.parameters())
    assert values.grad[..., 0].any()
    assert not values.grad[..., 1:].any()


def test_without_weights_there_is_no_penalty() -> None:
    scene, _ = built()
    assert scene.regularization_loss(scene.render(eight(), torch.zeros(8, 3))).item() == 0


def test_sparsity_empties_it() -> None:
    scene, adam = built(replace(SMALL, lambda_sparsity=1.0))
    alpha = scene.render(eight(), torch.zeros(8, 3)).alpha.mean().item()
    for step in range(20):
        frame = scene.render(eight(), torch.zeros(8, 3))
        adam.zero_grad()
        scene.regularization_loss(frame).backward()
        adam.step()
        scene.post_step(step / 20, frame, adam)
    assert frame.alpha.mean().item() < 0.5 * alpha


def test_smoothness_smooths_the_normals() -> None:
    """Of a blob with noise in it."""
    scene, adam = built(replace(SMALL, lambda_tv=1.0, blob=12.0))
    values = next(scene.field.parameters())
    with torch.no_grad():
        values += torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
    bends = []
    for _ in range(2):
        frame = scene.render(eight(), torch.zeros(8, 3))
        assert frame.normal is not None
        inside = frame.normal[:, 12:20, 12:20].detach()
        bends.append(float((inside[:, 1:] - inside[:, :-1]).square().sum(-1).mean()))
        for _ in range(20):
            adam.zero_grad()
            scene.regularization_loss(frame).backward()
            adam.step()
    assert bends[1] < 0.5 * bends[0]


def test_the_grid_grows_finer_on_time() -> None:
    knobs = NerfConfig(resolution=20, resolution_end=80, num_upsamplings=2, upsample_start=0.2, upsample_stop=0.6)
    assert [knobs.resolution_at(p) for p in (0.0, 0.19, 0.2, 0.59, 0.6, 1.0)] == [20, 20, 40, 40, 80, 80]
    assert {replace(knobs, num_upsamplings=0).resolution_at(p) for p in (0.0, 1.0)} == {20}
    assert [replace(knobs, num_upsamplings=1).resolution_at(p) for p in (0.1, 0.3)] == [20, 80]
    scene, adam = built()
    train(scene, adam, range(10), 10)
    assert scene.describe() == "40^3 voxels"
    assert [list(group["params"]) for group in adam.param_groups] == [[scene.field.values]]


def test_hash_tables_come_in_on_time() -> None:
    knobs = replace(HASHED, init_levels=2, upsample_start=0.2, upsample_stop=0.6)
    assert [knobs.levels_at(p) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([2, 2, 5, 8, 8])
    assert {replace(knobs, init_levels=8).levels_at(p) for p in (0.0, 0.4, 1.0)} == {8}
    assert replace(knobs, upsample_start=0.5, upsample_stop=0.5).levels_at(0.51) == 8
    scene, adam = built(knobs)
    assert scene.describe() == "2 of 8 hash tables of 32768"
    train(scene, adam, range(5), 10)
    torch.testing.assert_close(scene.field.level_weights, torch.tensor([1.0] * 5 + [0.0] * 3))
    other, _ = built(replace(knobs))
    other.load_training_state(scene.training_state())
    assert torch.equal(other.field.level_weights, scene.field.level_weights)


def test_nothing_solid_is_skipped_while_it_learns() -> None:
    scene, adam = built()
    train(scene, adam, range(60), 60)
    with torch.no_grad():
        sparse = scene.render(eight(), torch.zeros(8, 3))
        scene.occupancy = OccupancyGrid.full(16, "cpu")
        full = scene.render(eight(), torch.zeros(8, 3))
    assert isinstance(sparse.info, VolumeOutput)
    assert sparse.info.num_samples.sum() < full.info.num_samples.sum()
    assert (full.alpha - sparse.alpha).max() < 0.05


def test_what_lies_behind_is_learned_only_if_asked_for() -> None:
    scene, adam = built(replace(SMALL, background_sh_degree=0))
    behind = torch.tensor([0.9, 0.1, 0.3])
    train(scene, adam, range(120), 120, behind)
    corner = scene.render(eight(), torch.zeros(8, 3)).rgb[:, 0, 0].mean(0)
    torch.testing.assert_close(corner.detach(), behind, atol=0.1, rtol=0)
    with torch.no_grad():
        given = scene.render(eight(), torch.full((8, 3), 0.25)).rgb[:, 0, 0]
    torch.testing.assert_close(given, torch.full((8, 3), 0.25), atol=0.05, rtol=0)


def test_depth_is_along_the_axis_of_the_camera() -> None:
    scene, _ = built(replace(SMALL, blob=30.0, blob_width=0.3))
    with torch.no_grad():
        frame = scene.render(eight(), torch.zeros(8, 3))
    solid = frame.alpha[..., 0] > 0.99
    places = eight().unproject(frame.depth)
    assert places.norm(dim=-1)[solid].std() < 0.05  # a ball
    assert frame.normal is not None
    outward = functional.normalize(places, dim=-1)
    assert (outward * frame.normal).sum(-1)[solid].mean() > 0.9


def test_what_goes_wrong_is_named() -> None:
    scene, _ = built()
    assert scene.failure_reason() is None
    broken = deepcopy(scene)
    broken.field.values.data[3, 4, 5, 0] = math.nan
    assert broken.failure_reason() == "1 values of field.values are not finite"
    empty = deepcopy(scene)
    empty.occupancy = OccupancyGrid.from_mask(torch.zeros(16, 16, 16, dtype=torch.bool))
    empty.post_step(0.0, empty.render(eight(), torch.zeros(8, 3)), adam_of(empty))
    assert "transparent" in (empty.failure_reason() or "")
    with pytest.raises(ValueError, match="the scene is empty"):
        faint = replace(SMALL, blob=0.0).build("cpu", torch.Generator())
        faint.grid(20)


def test_a_camera_that_is_not_finite_is_refused() -> None:
    scene, _ = built()
    looks = eight()
    with pytest.raises(ValueError, match="not finite"):
        scene.render(replace(looks, c2w=looks.c2w * math.nan), torch.zeros(8, 3))


def test_a_checkpoint_that_does_not_fit_is_refused_by_name() -> None:
    scene, _ = built()
    state = scene.training_state()
    with pytest.raises(ValueError, match="the saved volume lacks empty"):
        scene.load_training_state({name: value for name, value in state.items() if name != "empty"})
    with pytest.raises(ValueError, match=r"lacks field.tables, field.hidden, field.out"):
        built(HASHED)[0].load_training_state(state)
    with pytest.raises(ValueError, match=r"field.values of the saved volume has shape \(24, 24, 24, 3\)"):
        scene.load_training_state(state | {"field.values": state["field.values"][..., :3]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 4}, "resolution is 4; it lies between 8 and 512"),
        ({"resolution_end": 16}, "a grid only becomes finer"),
        ({"upsample_start": 0.9}, "growing from 0.9 until 0.6"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lambda_sparsity": math.nan}, "lambda_sparsity is nan"),
        ({"background_sh_degree": 7}, "degree 7"),
        ({"occupancy_threshold": 0.0}, "occupancy_threshold is 0.0"),
        ({"init_levels": 9}, "init_levels is 9; it lies between 1 and 8"),
    ],
)
def test_knobs_out_of_range_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)
