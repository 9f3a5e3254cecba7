"""Pictures of splats: the kernel and its twin, and models rounded to bytes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from guidance.priors.mini3d.splat_models import Known, Packed, joined, packed
from guidance.priors.mini3d.splat_rendering import DISTANCE, FOV, Splats, covariances, pictures, views
from renderers.cameras import DISTANCE as TRUE_DISTANCE
from renderers.cameras import FOV as TRUE_FOV
from renderers.cameras import looking_at_origin
from renderers.splats.gaussians import Gaussians
from renderers.splats.rasterization import rasterise

CAMERA = torch.tensor([[0.0, 0.3], [1.3, -0.2], [3.1, 0.9], [5.0, 1.5]])


def parts(count: int = 300, seed: int = 0) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {
        "means": torch.rand(count, 3, generator=chance) * 1.4 - 0.7,
        "scales": torch.exp(-5 + 3 * torch.rand(count, 3, generator=chance)),
        "quaternions": torch.randn(count, 4, generator=chance),
        "opacities": torch.rand(count, generator=chance),
        "colours": torch.rand(count, 3, generator=chance),
    }


def splats(p: dict[str, torch.Tensor]) -> Splats:
    return Splats(p["means"], covariances(p["scales"], p["quaternions"]), p["opacities"], p["colours"])


@pytest.mark.parametrize("kernels", ["torch", "baseline", ""])
@pytest.mark.parametrize("size", [17, 64])
def test_pictures_are_those_of_the_renderer(kernels: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    p = parts()
    drawn = pictures([splats(p)] * len(CAMERA), CAMERA, size)
    scene = Gaussians(p["means"], p["quaternions"], p["scales"], p["opacities"], p["colours"])
    frame = rasterise(scene, looking_at_origin(*CAMERA.unbind(-1), size), torch.zeros(len(CAMERA), 3))
    torch.testing.assert_close(drawn[:, :3], frame.rgb.permute(0, 3, 1, 2), rtol=0, atol=5e-3)
    torch.testing.assert_close(drawn[:, 3:], frame.alpha.permute(0, 3, 1, 2), rtol=0, atol=5e-3)
    assert (drawn[:, 3:] - frame.alpha.permute(0, 3, 1, 2)).abs().mean() < 2e-5


def test_the_cameras_are_the_renderers() -> None:
    assert (FOV, DISTANCE) == (TRUE_FOV, TRUE_DISTANCE)
    theirs = looking_at_origin(*CAMERA.unbind(-1), 8).viewmats()[:, :3]
    torch.testing.assert_close(views(CAMERA), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", ""])
def test_each_picture_shows_its_own_model(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    one, other = splats(parts()), splats(parts(40, 1))
    both = pictures([one, other, one, other], CAMERA, 32)
    apart = torch.cat([pictures([m], CAMERA[i : i + 1], 32) for i, m in enumerate([one, other, one, other])])
    assert torch.equal(both, apart)
    with pytest.raises(ValueError, match="2 models for 4 cameras"):
        pictures([one, other], CAMERA, 32)


@pytest.mark.parametrize("kernels", ["torch", ""])
def test_nothing_is_drawn_of_nothing_and_of_what_is_behind(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    p = parts(5)
    p["means"] = torch.tensor([[0.0, 0.0, 2 * DISTANCE]]).repeat(5, 1)
    assert not pictures([splats(p)], torch.zeros(1, 2), 16).any()
    assert not pictures([splats({k: v[:0] for k, v in p.items()})], torch.zeros(1, 2), 16).any()


def test_rounding_changes_next_to_nothing_and_survives_the_disk(tmp_path: Path) -> None:
    every = [parts(200, seed) for seed in range(3)]
    rows = [packed(Known(f"thing {n}", ("red",)), *p.values()) for n, p in enumerate(every)]
    joined(rows).save(tmp_path)
    read = Packed.load(tmp_path)
    assert [row.name for row in read.known] == ["thing 0", "thing 1", "thing 2"]
    assert (tmp_path / "splats.safetensors").stat().st_size < 600 * 16 + 1000
    for number, p in enumerate(every):
        true, rounded = (pictures([m] * 4, CAMERA, 64) for m in (splats(p), read.model(number)))
        assert -10 * math.log10(float((true - rounded).square().mean())) > 45


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    packed(Known("thing"), *parts().values()).save(tmp_path)
    (tmp_path / "models.json").write_text('[{"name": "thing"}]')
    with pytest.raises(ValueError, match=r"models\.json is damaged"):
        Packed.load(tmp_path)
