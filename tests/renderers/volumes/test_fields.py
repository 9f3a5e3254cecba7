"""Fields: what is stored comes back in between, bounds hold, and the kernels of hash tables agree with their twins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from renderers.volumes import hash_kernels
from renderers.volumes.hash_field import HashGridField, decode_reference, encode, encode_reference, hash_indices
from renderers.volumes.occupancy import OccupancyGrid, dilate
from renderers.volumes.voxel_field import (
    Blob,
    VoxelField,
    lattice_points,
    outward,
    total_variation,
    trilinear,
    upsample,
    upsample_parameter,
)


def points(count: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)).double() - 1


def random_grid(resolution: int, seed: int = 0) -> Tensor:
    return torch.randn(resolution, resolution, resolution, 4, generator=torch.Generator().manual_seed(seed)).double()


# --- voxels ---


@given(st.integers(2, 9), st.integers(0, 9))
def test_a_linear_function_comes_back_with_its_slope(resolution: int, seed: int) -> None:
    slope = points(4, seed).T  # [3,4]
    corners = lattice_points(resolution, torch.zeros(1, dtype=torch.float64))
    grid = (0.3 + corners @ slope).view(resolution, resolution, resolution, 4)
    where = points(30, seed + 1)
    values, gradient = trilinear(grid, where)
    torch.testing.assert_close(values, 0.3 + where @ slope)
    torch.testing.assert_close(gradient, slope[:, 0].expand(30, 3))


@pytest.mark.parametrize("resolution", [2, 9, 20])
def test_the_variation_of_a_linear_function_is_its_slope(resolution: int) -> None:
    slope = torch.tensor([30.0, -20.0, 60.0], dtype=torch.float64)
    ramp = lattice_points(resolution, slope) @ slope
    grid = torch.stack([ramp, 7 * ramp], -1).view(resolution, resolution, resolution, 2)
    assert total_variation(grid).item() == pytest.approx(70, rel=1e-3)


def test_the_variation_pulls_as_finite_differences_say() -> None:
    """Over more planes than are worked on at once."""
    grid = random_grid(11)[:, :, :, :2].requires_grad_()
    assert torch.autograd.gradcheck(total_variation, grid)
    (pull,) = torch.autograd.grad(3 * total_variation(grid), grid)
    assert not pull[..., 1].any()
    assert abs(float(pull.sum())) < 1e-9  # a constant added changes nothing


def test_slopes_are_those_of_finite_differences() -> None:
    grid, where, step = random_grid(7), 0.9 * points(50, 1), 1e-6
    _, slope = trilinear(grid, where)
    for axis in range(3):
        aside = torch.zeros(3, dtype=torch.float64)
        aside[axis] = step
        rise = (trilinear(grid, where + aside)[0] - trilinear(grid, where - aside)[0])[:, 0] / (2 * step)
        torch.testing.assert_close(rise, slope[:, axis], atol=1e-4, rtol=1e-4)


def test_corners_are_where_the_lattice_is() -> None:
    grid = random_grid(6)
    values, _ = trilinear(grid, lattice_points(6, grid))
    torch.testing.assert_close(values, grid.view(-1, 4))


def test_normals_are_of_unit_length_or_shorter() -> None:
    length = outward(points(100)).norm(dim=-1)
    torch.testing.assert_close(length, torch.ones_like(length), atol=1e-3, rtol=0)
    assert not outward(torch.zeros(2, 3)).any()


@given(st.integers(2, 20), st.integers(1, 12), st.integers(0, 5))
def test_no_cell_is_denser_than_its_bound(resolution: int, cells: int, seed: int) -> None:
    field = VoxelField(3 * random_grid(resolution, seed), 10.0)
    bound, where = field.max_density(cells), points(500, seed)
    x, y, z = ((where + 1) * (cells / 2)).long().clamp(0, cells - 1).unbind(-1)
    with torch.no_grad():
        assert (field.query(where, False).density <= bound[x, y, z] + 1e-9).all()


def test_a_finer_grid_is_the_same_function_at_its_corners_and_keeps_the_memory_of_adam() -> None:
    field = VoxelField(random_grid(5).float(), 1.0)
    adam = Adam([{"params": [field.values], "name": "values"}])
    field.values.grad = torch.ones_like(field.values)
    adam.step()
    old, before = field.values, adam.state[field.values]["exp_avg"].sum()
    field.values = upsample_parameter(adam, old, 9)
    assert adam.param_groups[0]["params"] == [field.values]
    assert list(adam.state) == [field.values]
    torch.testing.assert_close(field.values[::2, ::2, ::2].detach(), old.detach())
    torch.testing.assert_close(adam.state[field.values]["exp_avg"].sum(), before)  # the pull as a whole is as it was
    field.values.grad = torch.ones_like(field.values)
    adam.step()
    with pytest.raises(ValueError, match="the optimiser does not hold this grid"):
        upsample_parameter(adam, old, 17)


def test_resampling_to_the_same_number_changes_nothing() -> None:
    grid = random_grid(6)
    torch.testing.assert_close(upsample(grid, 6), grid)


# --- occupancy ---


def test_distances_are_to_the_nearest_cell_with_something() -> None:
    something = torch.zeros(12, 12, 12, dtype=torch.bool)
    something[2, 3, 4] = something[9, 9, 1] = True
    empty = OccupancyGrid.from_mask(something).empty
    cell = lattice_points(12, torch.zeros(1)).add(1).mul(5.5).round().long()
    far = torch.stack([(cell - one).abs().amax(-1) for one in (torch.tensor([2, 3, 4]), torch.tensor([9, 9, 1]))])
    torch.testing.assert_close(empty.flatten().long(), far.amin(0).clamp_max(8))


def test_neighbours_are_kept_and_nan_counts_as_something() -> None:
    densest = torch.zeros(9, 9, 9)
    densest[4, 4, 4] = float("nan")
    occupancy = OccupancyGrid.from_density(densest, 0.1)
    assert int((occupancy.empty == 0).sum()) == 27
    assert torch.equal(occupancy.empty == 0, dilate(densest.isnan()))


def test_the_ball_around_what_is_there_holds_it() -> None:
    something = torch.zeros(8, 8, 8, dtype=torch.bool)
    something[3, 4, 4] = True
    assert OccupancyGrid.from_mask(something).radius == pytest.approx(0.25 * 3**0.5, rel=1e-3)
    something[0, 0, 0] = True
    assert OccupancyGrid.from_mask(something).radius == 1.0
    assert OccupancyGrid.full(4, "cpu").occupied_fraction == 1.0


# --- hash tables ---


def test_every_corner_has_an_entry_of_its_own_where_the_table_is_large_enough() -> None:
    corners = torch.cartesian_prod(*[torch.arange(9)] * 3)
    assert len(hash_indices(corners, 8, 1024).unique()) == 9**3
    shared = hash_indices(corners, 8, 512)
    assert shared.max() < 512
    assert len(shared.unique()) > 256


@pytest.mark.parametrize("count", [0, 1, 7, 8211])
def test_the_tables_are_read_as_the_twin_reads_them(kernels: str, count: int) -> None:
    """Feature by feature, through a network that lets one of them pass: max(0, x) - max(0, -x) = x."""
    where, resolutions = points(count), [3, 9, 40, 333]
    where[: count // 9] = where[: count // 9].sign()  # corners of the cube
    tables = torch.randn(4, 1024, 2, generator=torch.Generator().manual_seed(2))
    shares = torch.tensor([1.0, 0.7, 1.0, 1.0])
    slow = tables.double().requires_grad_()
    features = encode_reference(where.float().double(), slow, resolutions, shares.double())
    pull = torch.randn(count, 8, generator=torch.Generator().manual_seed(3))
    (features.T * pull).sum().backward()
    both, high = torch.cat([torch.eye(8), -torch.eye(8)]), Blob(40.0, 0.0)
    fast = tables.clone().requires_grad_()
    for feature in range(8):
        out = torch.zeros(4, 16)
        out[0, feature], out[0, 8 + feature] = 1, -1
        passed, _ = hash_kernels.query_hash_field(where.float(), high, (fast, both, out), resolutions, shares, 1.0)
        torch.testing.assert_close(passed.double() - 40, features[feature], atol=3e-4, rtol=0)
        (passed * pull[:, feature]).sum().backward()
    torch.testing.assert_close(fast.grad.double(), slow.grad, atol=3e-3, rtol=1e-3)


@pytest.mark.parametrize(("levels", "neurons"), [(2, 4), (8, 32), (16, 64)])
@pytest.mark.parametrize("count", [1, 63, 8500])
def test_the_network_is_that_of_the_twin(kernels: str, levels: int, neurons: int, count: int) -> None:
    chance = torch.Generator().manual_seed(4)
    resolutions, shares = [3 + 2 * level for level in range(levels)], torch.linspace(1, 0, levels)
    shapes = [(levels, 1024, 2), (neurons, 2 * levels), (4, neurons)]
    weights = [torch.randn(*shape, generator=chance) for shape in shapes]
    where, blob = points(count).float(), Blob(-0.5, 2.0, 0.4)
    results = []
    for kind in (torch.float32, torch.float64):
        leaves = [tensor.to(kind, copy=True).requires_grad_() for tensor in weights]
        if kind == torch.float32:
            density, albedo = hash_kernels.query_hash_field(where, blob, tuple(leaves), resolutions, shares, 3.0)
        else:
            features = encode_reference(where.to(kind), leaves[0], resolutions, shares.to(kind))
            density, albedo = decode_reference(features, *leaves[1:], blob(where.to(kind)), 3.0)
        pull = torch.Generator().manual_seed(5)
        seen = torch.arange(count) % 97 > 30  # whole groups of points have no gradient at all
        pulls = [torch.randn(part.shape, generator=pull).to(kind) for part in (density, albedo)]
        ((density * pulls[0])[seen].sum() + (albedo * pulls[1])[seen].sum()).backward()
        results.append([density.detach(), albedo.detach(), *(leaf.grad for leaf in leaves)])
    for mine, theirs in zip(*results, strict=True):
        assert (mine.double() - theirs).norm() <= 1e-5 * theirs.norm() + 1e-6


def test_the_kernels_say_the_same_whether_or_not_a_gradient_is_wanted_and_on_any_number_of_threads(
    kernels: str,
) -> None:
    field, where = HashGridField(torch.Generator().manual_seed(0)), points(30_000).float()
    pull = torch.randn(30_000, 4, generator=torch.Generator().manual_seed(1))
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            field.zero_grad()
            found = field.query(where, False)
            (torch.cat([found.density[:, None], found.albedo], -1) * pull).sum().backward()
            with torch.no_grad():
                alone = field.query(where, False)
            results.append([found.density, found.albedo, alone.density, alone.albedo])
            results[-1] += [parameter.grad for parameter in field.parameters()]
    finally:
        torch.set_num_threads(1)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(results[0][0], results[0][2]) and torch.equal(results[0][1], results[0][3])


def test_levels_come_in_one_after_the_other() -> None:
    field = HashGridField(torch.Generator().manual_seed(0), levels=4)
    assert field.level_weights.tolist() == [1, 1, 1, 1]
    field.set_active_levels(2.5)
    torch.testing.assert_close(field.level_weights, torch.tensor([1.0, 1.0, 0.5, 0.0]))
    some = points(200).float()
    before = field.query(some, False).density
    with torch.no_grad():
        field.tables[3] += 1  # what is not in is not seen, and is not pulled at
    assert torch.equal(field.query(some, False).density, before)
    field.query(some, False).density.sum().backward()
    assert field.tables.grad[2].any() and not field.tables.grad[3].any()


def test_a_hashed_field_says_the_same_in_float32_and_float64(kernels: str) -> None:
    fast = HashGridField(torch.Generator().manual_seed(0), levels=4, log2_size=10, finest=32, width=8)
    slow = HashGridField(torch.Generator().manual_seed(0), levels=4, log2_size=10, finest=32, width=8).double()
    for normals in (False, True):
        with torch.no_grad():
            mine, theirs = fast.query(points(400).float(), normals), slow.query(points(400), normals)
        torch.testing.assert_close(mine.density.double(), theirs.density, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.albedo.double(), theirs.albedo, atol=1e-4, rtol=1e-4)
        if mine.normal is not None and theirs.normal is not None:
            agree = functional.cosine_similarity(mine.normal.double(), theirs.normal, dim=-1)
            assert agree[theirs.density > 0.5].min() > 0.99


def test_the_blob_is_highest_in_the_middle() -> None:
    blob = Blob(edge=-8.0, height=7.0, width=0.3)
    ladder = torch.linspace(0, 1, 20)[:, None] * torch.tensor([[0.0, 0.6, 0.8]])
    raw = blob(ladder)
    assert raw[0] == -1
    assert (raw.diff() < 0).all()


@pytest.mark.parametrize(
    "change", [{"levels": 3}, {"levels": 0}, {"log2_size": 30}, {"finest": 1}, {"width": 6}, {"width": 400}]
)
def test_sizes_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected 2\.\.16"):
        HashGridField(torch.Generator(), **change)


@pytest.mark.parametrize("log2_size", [6, 12])
def test_all_levels_at_once_are_as_one_by_one(log2_size: int) -> None:
    """Features, and gradients of the tables, with and without levels that share their entries; up to the faces."""
    rng = torch.Generator().manual_seed(2)
    field = HashGridField(rng, levels=4, log2_size=log2_size, finest=24, width=4).double()
    field.set_active_levels(2.5)
    points = torch.cat([2 * torch.rand(200, 3, generator=rng) - 1, torch.tensor([[1.0, -1.0, 1.0]])]).double()
    pull = torch.rand(8, len(points), generator=rng).double()
    found = []
    for features in (
        encode_reference(points, field.tables, field.resolutions, field.level_weights),
        encode(points, field.tables, field.sides, field.resolutions, field.level_weights),
    ):
        found.append((features, *torch.autograd.grad((features * pull).sum(), [field.tables])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_large_picture_of_hash_tables_keeps_only_its_points() -> None:
    """What lies between is worked out again on the way back."""
    field = HashGridField(torch.Generator().manual_seed(2), levels=8, log2_size=8, finest=64, width=8)
    kept = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    points = torch.rand(20_000, 3)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        density, albedo = field._in_chunks(points)
    assert kept < 40 * len(points) + 10 * sum(p.numel() * 4 for p in field.parameters())
    (density.sum() + albedo.sum()).backward()
    assert all(bool(p.grad.any()) for p in field.parameters())
