"""Splats in small files: what viewers decode is what was trained, within the steps of the format."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from renderers.splats.density_grid import SplatParameters
from sds3d.export.check import check
from sds3d.formats.mesh_reader import facts_of
from sds3d.formats.metadata import gzip_comment
from sds3d.formats.splat_ply import write_splats
from sds3d.formats.splat_reader import splats_in
from sds3d.formats.splat_writers import write_splat, write_splat_glb, write_spz
from sds3d.runs.reproduce import config_from_file

C0 = 0.28209479177387814
FACTS = {"prompt": "a blue émeu", "seed": 3}


@pytest.fixture
def cloud() -> SplatParameters:
    chance = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance)

    return SplatParameters(normal(50, 3), normal(50, 3) - 4, normal(50, 4), normal(50), 0.3 * normal(50, 4, 3))


def plain(cloud: SplatParameters) -> dict[str, np.ndarray]:
    quats = torch.nn.functional.normalize(cloud.quats, dim=-1)
    quats = quats * torch.where(quats[:, :1] < 0, -1.0, 1.0)
    return {
        "means": cloud.means.numpy(),
        "scales": cloud.log_scales.exp().numpy(),
        "quats": quats.numpy(),
        "opacity": torch.sigmoid(cloud.logit_opacities).numpy(),
        "colour": (0.5 + C0 * cloud.sh[:, 0]).clamp(0, 1).numpy(),
    }


def test_splat_files_hold_32_bytes_a_splat_the_most_visible_first(cloud: SplatParameters, tmp_path: Path) -> None:
    write_splat(tmp_path / "a.splat", cloud)
    content, known = (tmp_path / "a.splat").read_bytes(), plain(cloud)
    assert len(content) == 32 * 50
    rows = [struct.unpack("<6f8B", content[start : start + 32]) for start in range(0, len(content), 32)]
    size = known["opacity"] * known["scales"].prod(-1)
    for row, index in zip(rows, np.argsort(-size, kind="stable"), strict=True):
        assert row[:3] == pytest.approx(known["means"][index], abs=1e-6)
        assert row[3:6] == pytest.approx(known["scales"][index], rel=1e-5)
        assert np.divide(row[6:10], 255) == pytest.approx([*known["colour"][index], known["opacity"][index]], abs=0.002)
        assert (np.array(row[10:]) - 128) / 128 == pytest.approx(known["quats"][index], abs=0.008)


def test_spz_decodes_by_the_formulas_of_its_description(cloud: SplatParameters, tmp_path: Path) -> None:
    write_spz(tmp_path / "a.spz", cloud)
    content, known = gzip.decompress((tmp_path / "a.spz").read_bytes()), plain(cloud)
    assert struct.unpack("<4sIIBBBB", content[:16]) == (b"NGSP", 2, 50, 1, 12, 0, 0)
    body, place = np.frombuffer(content[16:], np.uint8), 0

    def take(width: int) -> np.ndarray:
        nonlocal place
        place += 50 * width
        return body[place - 50 * width : place].reshape(50, width).astype(np.int64)

    fixed = take(9).reshape(50, 3, 3) @ [1, 256, 65536]
    assert np.where(fixed >= 2**23, fixed - 2**24, fixed) / 4096 == pytest.approx(known["means"], abs=2.5e-4)
    assert take(1)[:, 0] / 255 == pytest.approx(known["opacity"], abs=0.002)
    assert (take(3) / 255 - 0.5) / 0.15 == pytest.approx(cloud.sh[:, 0].numpy(), abs=0.014)
    assert take(3) / 16 - 10 == pytest.approx(cloud.log_scales.numpy(), abs=0.032)
    assert take(3) / 127.5 - 1 == pytest.approx(known["quats"][:, 1:], abs=0.004)
    assert (take(9) - 128) / 128 == pytest.approx(cloud.sh[:, 1:].reshape(50, 9).numpy(), abs=0.004)
    assert place == len(body)


def test_gltf_splats_are_activated_once(cloud: SplatParameters, tmp_path: Path) -> None:
    """Lengths and shares, not logarithms and logits; rotations x, y, z, w; numbers read past any library of ours."""
    pygltflib = pytest.importorskip("pygltflib")
    write_splat_glb(tmp_path / "a.glb", cloud, {"prompt": "dots"})
    document, known = pygltflib.GLTF2().load(str(tmp_path / "a.glb")), plain(cloud)
    assert document.asset.extras == {"prompt": "dots"}
    assert document.extensionsUsed == ["KHR_gaussian_splatting"]
    primitive = document.meshes[0].primitives[0]
    assert primitive.mode == 0
    about = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    assert primitive.extensions == {"KHR_gaussian_splatting": about}
    content = (tmp_path / "a.glb").read_bytes()
    (words,) = struct.unpack("<I", content[12:16])
    attributes = json.loads(content[20 : 20 + words])["meshes"][0]["primitives"][0]["attributes"]

    def column(name: str, kind: str = "<f4") -> np.ndarray:
        accessor = document.accessors[attributes[name]]
        start = document.bufferViews[accessor.bufferView].byteOffset
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor.type]
        return np.frombuffer(document.binary_blob(), kind, 50 * width, start).reshape(50, width)

    prefix = "KHR_gaussian_splatting:"
    assert column("POSITION") == pytest.approx(known["means"], abs=1e-6)
    assert column(f"{prefix}SCALE") == pytest.approx(known["scales"], rel=1e-5)
    assert column(f"{prefix}OPACITY")[:, 0] == pytest.approx(known["opacity"], abs=1e-6)
    assert column(f"{prefix}ROTATION") == pytest.approx(known["quats"][:, [1, 2, 3, 0]], abs=1e-6)
    for index, name in enumerate(("0_COEF_0", "1_COEF_0", "1_COEF_1", "1_COEF_2")):
        assert column(f"{prefix}SH_DEGREE_{name}") == pytest.approx(cloud.sh[:, index].numpy(), abs=1e-6)
    shown = column("COLOR_0", "u1")[:, :3] / 255
    srgb = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    assert srgb == pytest.approx(known["colour"], abs=0.03)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(cloud: SplatParameters, tmp_path: Path) -> None:
    none = SplatParameters(
        *(getattr(cloud, name)[:0] for name in ("means", "log_scales", "quats", "logit_opacities", "sh"))
    )
    spoilt = replace(cloud, means=cloud.means.clone().index_fill_(0, torch.tensor([3]), float("nan")))
    for bad, words in ((none, "no splats"), (spoilt, "1 of the 50 splats have values that are not finite")):
        with pytest.raises(ValueError, match=words):
            write_splat(tmp_path / "a.splat", bad)
        with pytest.raises(ValueError, match=words):
            write_spz(tmp_path / "a.spz", bad)
        with pytest.raises(ValueError, match=words):
            write_splat_glb(tmp_path / "a.glb", bad, {})
    with pytest.raises(ValueError, match="SPZ files reach to 2047"):
        write_spz(tmp_path / "a.spz", replace(cloud, means=cloud.means + 3000))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["ply", "splat", "spz", "glb"])
def test_splats_are_read_back_and_checked(cloud: SplatParameters, tmp_path: Path, kind: str) -> None:
    path, known = tmp_path / f"a.{kind}", plain(cloud)
    writers = {"ply": lambda p, c: write_splats(p, c, facts=FACTS), "glb": lambda p, c: write_splat_glb(p, c, FACTS)}
    writers |= {"splat": lambda p, c: write_splat(p, c, FACTS), "spz": lambda p, c: write_spz(p, c, FACTS)}
    writers[kind](path, cloud)
    back = plain(splats_in(path))
    order = np.argsort(-known["opacity"] * known["scales"].prod(-1), kind="stable") if kind == "splat" else slice(None)
    for name, off in (("means", 2.5e-4), ("opacity", 0.0041), ("colour", 0.004), ("quats", 0.2)):
        assert back[name] == pytest.approx(known[name][order], abs=off), name
    assert back["scales"] == pytest.approx(known["scales"][order], rel=0.04)
    report = check(path)
    assert (report["splats"], report["degree"], report["problems"]) == (50, 0 if kind == "splat" else 1, [])
    assert report["bounds"]["to"] == pytest.approx(cloud.means.amax(0).tolist(), abs=1e-3)
    assert report["origin"] == FACTS
    assert json.loads(json.dumps(report)) == report


def test_faults_of_splats_are_named(cloud: SplatParameters, tmp_path: Path) -> None:
    means = cloud.means.clone()
    means[3, 1], means[4, 0] = float("nan"), 1e6
    write_splats(tmp_path / "a.ply", replace(cloud, means=means, logit_opacities=cloud.logit_opacities - 30))
    wrong = check(tmp_path / "a.ply")["problems"]
    assert [line.split(" ", 1)[1] for line in wrong] == [
        "splats have values that are not finite numbers",
        "splats are too faint to be seen",
        "splats lie more than 100 times as far out as the median one",
    ]
    write_spz(tmp_path / "a.spz", cloud)
    whole = (tmp_path / "a.spz").read_bytes()
    for name, content, said in (
        ("b.spz", gzip.compress(gzip.decompress(whole)[:-1]), "cut short"),
        ("c.spz", whole[:-30], "cannot be read as SPZ"),
        ("d.spz", b"x", "cannot be read as SPZ"),
        ("e.spz", gzip.compress(b"NGSP" + bytes([9]) + bytes(20)), "SPZ of version 9"),
        ("f.splat", b"x" * 33, "32 for each splat"),
        ("g.splat", b"", "and not 0"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=said):
            check(tmp_path / name)


def test_an_spz_file_with_a_comment_is_still_a_gzip_file(cloud: SplatParameters, tmp_path: Path) -> None:
    """The comment is where RFC 1952 has it: Python's reader and the system's both pass over it."""
    write_spz(tmp_path / "a.spz", cloud)
    write_spz(tmp_path / "b.spz", cloud, FACTS)
    plain_bytes, said = (tmp_path / "a.spz").read_bytes(), (tmp_path / "b.spz").read_bytes()
    assert gzip.decompress(plain_bytes) == gzip.decompress(said) == zlib.decompress(said, 31)
    assert json.loads(gzip_comment(said)) == FACTS and gzip_comment(plain_bytes) == ""
    named = said[:3] + bytes([16 | 8 | 4]) + said[4:10] + b"\x03\x00abc" + b"name\0" + said[10:]
    assert json.loads(gzip_comment(named)) == FACTS and zlib.decompress(named, 31) == gzip.decompress(said)


def test_an_origin_beside_a_file_belongs_to_it_alone(cloud: SplatParameters, tmp_path: Path) -> None:
    write_splat(tmp_path / "a.splat", cloud, FACTS)
    assert facts_of(tmp_path / "a.splat") == FACTS
    (tmp_path / "b.splat").write_bytes((tmp_path / "a.splat").read_bytes()[:-32])
    (tmp_path / "a.splat.origin.json").rename(tmp_path / "b.splat.origin.json")
    assert facts_of(tmp_path / "a.splat") is None and facts_of(tmp_path / "b.splat") is None
    with pytest.raises(
        ValueError, match=r"no room for their origin, and there is no b\.splat\.origin\.json that belongs"
    ):
        config_from_file(tmp_path / "b.splat")
