"""Exports are opened by the programs they are for: Blender, the Khronos validator, Pixar's UsdValidation.

Slow, and only where they are found: SDS3D_BLENDER names an interpreter that has bpy (an environment of its own, for it
wants an older numpy), SDS3D_GLTF_VALIDATOR a folder with `npm install gltf-validator`. Results: docs/exports.md.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from renderers.meshes.mesh import MaterialMaps, Mesh, StaticMeshScene, fibonacci_cameras
from renderers.meshing.attribute_transfer import bake_normal_map
from renderers.meshing.extraction import MeshExtractionConfig, extract_mesh
from renderers.meshing.tangents import tangents
from renderers.splats.config import SplatConfig
from sds3d.export.export import write_mesh
from sds3d.export.export_mesh import simplify_textured
from sds3d.export.targets import FORMATS, TARGETS, resolve_options
from sds3d.export.validators import verdict
from sds3d.formats.layout import Layout
from tests.support.sds3d.signpost import BLUE, GREEN, GREY, RED, TIP, signpost

pytestmark = pytest.mark.slow
BLENDER = os.environ.get("SDS3D_BLENDER", "")
SCRIPT = Path(__file__).parents[2] / "support" / "sds3d" / "blender_import.py"
FACTS = {"prompt": "a signpost", "seed": 1, "run": "x" * 2000}
OPENED = ("glb", "gltf", "obj", "ply", "stl", "usda", "usdz")
ASSETS = 20
needs_blender = pytest.mark.skipif(not BLENDER, reason="SDS3D_BLENDER names no interpreter with bpy")


def asset(seed: int) -> Mesh:
    """A blob of splats as a mesh; every second one has maps."""
    scene = SplatConfig(init_count=300 + 20 * seed, init_opacity=0.9).build("cpu", torch.Generator().manual_seed(seed))
    knobs = MeshExtractionConfig(
        faces=1500 + 100 * seed, texture_size=128, resolution=40, views=4, silhouette_size=48, texture_render_size=64
    )
    with torch.no_grad():
        mesh = extract_mesh(scene, knobs)
    if seed % 2:
        chance = np.random.default_rng(seed)
        grain = chance.integers(0, 256, (2, 128, 128), np.uint8)
        bumps = np.zeros((128, 128, 3), np.uint8) + np.array([128, 128, 255], np.uint8)
        mesh = replace(mesh, maps=MaterialMaps(grain[0], grain[1], bumps))
    return mesh


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Twenty assets in each format, laid out for Blender."""
    folder = tmp_path_factory.mktemp("assets")
    made: dict[str, list[Path]] = {kind: [] for kind in OPENED}
    for seed in range(ASSETS):
        mesh = asset(seed)
        for kind in OPENED:
            layout = resolve_options("blender", kind).layout
            made[kind].append(folder / f"{kind}{seed}.{kind}")
            write_mesh(made[kind][-1], kind, layout.apply(mesh), FACTS, layout)
    return made


@pytest.mark.parametrize("kind", ["glb", "gltf", "usda", "usdz"])
def test_twenty_assets_pass_their_validator(assets: dict[str, list[Path]], kind: str) -> None:
    said = [verdict(path) for path in assets[kind]]
    if "errors" not in said[0]:
        pytest.skip(said[0]["validator"])
    assert [(one["errors"], one["warnings"], one["messages"]) for one in said] == [(0, 0, [])] * ASSETS


def ask(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What Blender answers."""
    (folder / "job.json").write_text(json.dumps({**job, "out": str(folder / "answers.json")}))
    command = [BLENDER, str(SCRIPT), str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return answers


@needs_blender
def test_blender_opens_twenty_assets_of_every_format(assets: dict[str, list[Path]], tmp_path: Path) -> None:
    answers = ask(tmp_path, {"files": [str(path) for paths in assets.values() for path in paths]})
    for kind, paths in assets.items():
        for path in paths:
            found = answers[str(path)]
            assert found["objects"] == 1 and found["normals_right"] > 0.99 and found["volume"] > 0, path
            size = np.subtract(found["high"], found["low"])
            same = np.subtract(answers[str(assets["glb"][paths.index(path)])]["high"], found["high"])
            assert np.abs(same).max() < 1e-4 and abs(found["low"][2]) < 1e-4 and size.max() < 3, path
            if kind in ("ply", "stl"):
                continue
            assert (found["materials"], found["uv"], found["textured"]) == (1, 1, True), path
            assert [128, 128] in found["images"], path


@needs_blender
@pytest.mark.parametrize("target", ["blender", "unreal", "maya"])
def test_blender_sees_the_signpost_as_it_is(tmp_path: Path, target: str) -> None:
    """Up, front, left, size and colour; USD says its unit, so centimetres come back as metres."""
    files: dict[str, Path] = {}
    for kind in TARGETS[target].kinds:
        layout = replace(resolve_options(target, kind).layout, origin="free")
        if target != "blender" and kind == "obj":
            continue  # nothing in an OBJ says that it is in centimetres
        files[kind] = tmp_path / f"sign_{kind}.{FORMATS[kind].ending}"
        write_mesh(files[kind], kind, layout.apply(signpost()), FACTS, layout)
    answers = ask(tmp_path, {"files": [str(path) for path in files.values()]})
    for kind, path in files.items():
        found = answers[str(path)]
        x, y, z = TIP
        assert found["tip"] == pytest.approx([x, -z, y], abs=1e-4), kind
        assert found["low"] == pytest.approx([-0.7, -0.1, -0.5], abs=1e-4), kind
        assert found["high"] == pytest.approx([0.7, 0.1, 0.75], abs=1e-4), kind
        assert found["volume"] == pytest.approx(signpost().surface.volume, rel=1e-3)
        if kind == "stl":
            continue
        rows = np.array(found["triangles"])
        where = {c: rows[np.abs(rows[:, 3:] - c).max(-1) <= 2][:, :3].mean(0) for c in (RED, BLUE, GREEN, GREY)}
        assert where[RED][0] > 0.4 and where[BLUE][0] < -0.4 and where[GREEN][2] > 0.5, kind
        assert where[GREY][2] < -0.2 and where[GREY][1] < 0, kind  # the patch is a little to the front, Blender's -Y
        if kind != "ply":
            assert (found["metallic"], found["roughness"]) == pytest.approx((0, 0.9)), kind


@needs_blender
def test_blender_bends_light_in_the_same_frames(tmp_path: Path) -> None:
    """Blender leaves a file's tangents aside and makes its own; a normal map looks right where both are the same."""
    mesh = bake_normal_map(simplify_textured(replace(asset(2), maps=None), 500), asset(2).surface)
    write_mesh(tmp_path / "a.glb", "glb", mesh, FACTS, Layout())
    theirs = np.array(ask(tmp_path, {"files": [], "tangents": str(tmp_path / "a.glb")})["tangents"])
    corners = mesh.faces.reshape(-1)
    ours = tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces)[corners]
    assert theirs[:, :3] == pytest.approx(Layout("z").rotate(mesh.vertices)[corners], abs=1e-5)
    angle = np.degrees(np.arccos((theirs[:, 3:6] * Layout("z").rotate(ours[:, :3])).sum(-1).clip(-1, 1)))
    print(f"tangents: {np.mean(angle):.3f} degrees off on average, 99 % below {np.quantile(angle, 0.99):.2f}")
    assert np.quantile(angle, 0.99) < 1
    assert (theirs[:, 6] == ours[:, 3]).mean() > 0.999


@needs_blender
def test_blender_draws_what_we_draw(tmp_path: Path) -> None:
    """The same views of one asset by Cycles, its texture as light, and by our renderer: outline and colours."""
    mesh, size = replace(asset(3), maps=None), 96
    layout = Layout()
    write_mesh(tmp_path / "a.glb", "glb", layout.apply(mesh), FACTS, layout)
    cameras = fibonacci_cameras(24, size)[::4]
    ask(tmp_path, {
        "files": [], "render": str(tmp_path / "a.glb"), "c2w": cameras.c2w.tolist(), "size": size,
        "fov": float(cameras.fov_y[0]), "folder": str(tmp_path),
    })  # fmt: skip
    ours = StaticMeshScene(mesh, supersample=4).render(cameras, torch.zeros(len(cameras), 3))
    ious, errors = [], []
    for index in range(len(cameras)):
        theirs = np.asarray(Image.open(tmp_path / f"{index}.png"), np.float64) / 255
        here, there = ours.alpha[index, ..., 0].numpy() > 0.5, theirs[..., 3] > 0.5
        ious.append((here & there).sum() / (here | there).sum())
        inside = (ours.alpha[index, ..., 0].numpy() > 0.999) & (theirs[..., 3] > 0.999)
        errors.append(np.square(ours.rgb[index].numpy() - theirs[..., :3])[inside].mean())
    iou, psnr = float(np.mean(ious)), -10 * math.log10(float(np.mean(errors)))
    print(f"Blender against ours: IoU {iou:.4f}, PSNR {psnr:.1f} dB")
    assert iou > 0.97 and psnr > 30
