"""Pictures of splats: the kernel and its twin, and models rounded to bytes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from guidance.priors.mini3d.splat_models import PackedSplats, SplatModelInfo, cat_packed, pack_splats
from guidance.priors.mini3d.splat_rendering import (
    DISTANCE,
    FOV_Y,
    SplatModel,
    covariances_from_scales_quats,
    render_splats,
    viewmats_from_angles,
)
from renderers.cameras import DISTANCE as TRUE_DISTANCE
from renderers.cameras import FOV as TRUE_FOV
from renderers.cameras import look_at_origin
from renderers.splats.gaussians import Gaussians
from renderers.splats.rasterization import rasterize

CAMERA = torch.tensor([[0.0, 0.3], [1.3, -0.2], [3.1, 0.9], [5.0, 1.5]])


def random_splats(count: int = 300, seed: int = 0) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {
        "means": torch.rand(count, 3, generator=chance) * 1.4 - 0.7,
        "scales": torch.exp(-5 + 3 * torch.rand(count, 3, generator=chance)),
        "quaternions": torch.randn(count, 4, generator=chance),
        "opacities": torch.rand(count, generator=chance),
        "colors": torch.rand(count, 3, generator=chance),
    }


def make_model(p: dict[str, torch.Tensor]) -> SplatModel:
    return SplatModel(
        p["means"], covariances_from_scales_quats(p["scales"], p["quaternions"]), p["opacities"], p["colors"]
    )


@pytest.mark.parametrize("kernels", ["torch", "baseline", ""])
@pytest.mark.parametrize("size", [17, 64])
def test_matches_the_renderer(kernels: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    p = random_splats()
    drawn = render_splats([make_model(p)] * len(CAMERA), CAMERA, size)
    scene = Gaussians(p["means"], p["quaternions"], p["scales"], p["opacities"], p["colors"])
    frame = rasterize(scene, look_at_origin(*CAMERA.unbind(-1), size), torch.zeros(len(CAMERA), 3))
    torch.testing.assert_close(drawn[:, :3], frame.rgb.permute(0, 3, 1, 2), rtol=0, atol=5e-3)
    torch.testing.assert_close(drawn[:, 3:], frame.alpha.permute(0, 3, 1, 2), rtol=0, atol=5e-3)
    assert (drawn[:, 3:] - frame.alpha.permute(0, 3, 1, 2)).abs().mean() < 2e-5


def test_viewmats_match_the_renderer() -> None:
    assert (FOV_Y, DISTANCE) == (TRUE_FOV, TRUE_DISTANCE)
    theirs = look_at_origin(*CAMERA.unbind(-1), 8).viewmats()[:, :3]
    torch.testing.assert_close(viewmats_from_angles(CAMERA), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", ""])
def test_batched_renders_equal_single_ones(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    one, other = make_model(random_splats()), make_model(random_splats(40, 1))
    both = render_splats([one, other, one, other], CAMERA, 32)
    apart = torch.cat([render_splats([m], CAMERA[i : i + 1], 32) for i, m in enumerate([one, other, one, other])])
    assert torch.equal(both, apart)
    with pytest.raises(ValueError, match="2 models for 4 cameras"):
        render_splats([one, other], CAMERA, 32)


@pytest.mark.parametrize("kernels", ["torch", ""])
def test_empty_or_hidden_models_render_nothing(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    p = random_splats(5)
    p["means"] = torch.tensor([[0.0, 0.0, 2 * DISTANCE]]).repeat(5, 1)
    assert not render_splats([make_model(p)], torch.zeros(1, 2), 16).any()
    assert not render_splats([make_model({k: v[:0] for k, v in p.items()})], torch.zeros(1, 2), 16).any()


def test_packing_round_trip(tmp_path: Path) -> None:
    every = [random_splats(200, seed) for seed in range(3)]
    rows = [pack_splats(SplatModelInfo(f"thing {n}", ("red",)), *p.values()) for n, p in enumerate(every)]
    cat_packed(rows).save(tmp_path)
    read = PackedSplats.load(tmp_path)
    assert [row.name for row in read.infos] == ["thing 0", "thing 1", "thing 2"]
    assert (tmp_path / "splats.safetensors").stat().st_size < 600 * 16 + 1000
    for number, p in enumerate(every):
        true, rounded = (render_splats([m] * 4, CAMERA, 64) for m in (make_model(p), read.unpack(number)))
        assert -10 * math.log10(float((true - rounded).square().mean())) > 45


def test_damaged_file_is_named(tmp_path: Path) -> None:
    pack_splats(SplatModelInfo("thing"), *random_splats().values()).save(tmp_path)
    (tmp_path / "models.json").write_text('[{"name": "thing"}]')
    with pytest.raises(ValueError, match=r"models\.json is damaged"):
        PackedSplats.load(tmp_path)
