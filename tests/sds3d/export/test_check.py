"""What `check` finds in files, what is refused, and that a print is one closed shell."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from renderers.meshes.mesh import Mesh, StaticMeshScene
from renderers.splats.config import SplatConfig
from sds3d.__main__ import main
from sds3d.evaluation.mesh_fidelity import lab, mesh_fidelity
from sds3d.export.check import check
from sds3d.export.export import verify, write_mesh
from sds3d.export.targets import FORMATS, TARGETS, ExportOptions, resolve_options
from sds3d.export.validators import FOLDER, verdict
from sds3d.formats.layout import Layout
from sds3d.formats.mesh_reader import facts_of, read
from sds3d.formats.printable import printable, shells, welded
from sds3d.formats.splat_writers import write_splat_glb
from tests.support.fuzzing import check_reader
from tests.support.renderers.known_shapes import ball
from tests.support.sds3d.signpost import signpost

MESHES = [name for name, kind in FORMATS.items() if kind.content == "mesh"]
FACTS = {"prompt": "a signpost", "seed": 5, "objective": "sds", "prior": "mini", "steps": 3, "sds3d": "1"}


def sphere(radius: float = 0.5) -> Mesh:
    surface = ball(radius, 12)
    chance = np.random.default_rng(0)
    texture = chance.integers(0, 256, (32, 32, 3), np.uint8)
    uv = (0.5 + 0.4 * surface.vertices[:, :2] / radius).astype(np.float32)
    return Mesh(surface.vertices, surface.faces, surface.normals, uv, texture)


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]).astype(np.int32)
    parts = [np.concatenate([getattr(mesh, name) for mesh in meshes]) for name in ("vertices", "normals", "uv")]
    return Mesh(parts[0], faces, parts[1], parts[2], meshes[0].texture)


def moved(mesh: Mesh, *by: float) -> Mesh:
    return replace(mesh, vertices=mesh.vertices + np.float32(by))


@pytest.mark.parametrize("kind", MESHES)
def test_every_format_is_seen_through(kind: str, tmp_path: Path) -> None:
    if kind.startswith("usd"):
        pytest.importorskip("pxr")
    layout, path = FORMATS[kind].layout, tmp_path / f"a.{kind}"
    laid = layout.apply(signpost())
    write_mesh(path, kind, laid, FACTS, layout)
    verify(path, laid, layout)
    report = check(path)
    assert (report["faces"], report["components"], report["watertight"]) == (54, 5, True)
    unit = {"m": 1, "cm": 100, "mm": 1000}[layout.unit]
    assert report["volume"] == pytest.approx(signpost().surface.volume * unit**3, rel=1e-4)
    assert sorted(report["size"]) == pytest.approx([0.2 * unit, 1.25 * unit, 1.4 * unit], rel=1e-5)
    assert report["axis"] == ({"up": None, "unit": None} if kind == "obj" else {"up": layout.up, "unit": layout.unit})
    if kind != "stl":
        assert report["origin"] == {name: FACTS[name] for name in report["origin"]}
        assert facts_of(path) == FACTS
    if kind not in ("stl", "ply", "3mf"):
        assert report["textures"]["color"] == [256, 256] and report["normals"]["turned"] == 0
    # Tiles are shared by many triangles, and that is what it complains about.
    assert not [line for line in report["problems"] if "under more than one triangle" not in line]


def test_a_wrong_file_is_noticed_after_writing(tmp_path: Path) -> None:
    laid, path = Layout().apply(signpost()), tmp_path / "a.glb"
    write_mesh(path, "glb", laid, FACTS, Layout())
    with pytest.raises(ValueError, match="positions that are"):
        verify(path, replace(laid, vertices=laid.vertices * np.float32([-1, 1, 1])), Layout())
    with pytest.raises(ValueError, match="holds 54 triangles where 53"):
        verify(path, replace(laid, faces=laid.faces[1:]), Layout())
    with pytest.raises(ValueError, match="texture coordinates"):
        verify(path, replace(laid, uv=1 - laid.uv), Layout())
    with pytest.raises(ValueError, match="texture of"):
        verify(path, replace(laid, texture=laid.texture[:8, :8]), Layout())
    with pytest.raises(ValueError, match="where z up and cm were meant"):
        verify(path, laid, Layout("z", "cm"))


def test_faults_are_named(tmp_path: Path) -> None:
    good = sphere()
    faults = {
        "face inward": replace(good, faces=good.faces[:, ::-1].copy()),
        "have no area": replace(good, faces=np.concatenate([good.faces, [[0, 1, 1]]]).astype(np.int32)),
        "point to their back": replace(good, normals=-good.normals),
    }
    for words, mesh in faults.items():
        write_mesh(tmp_path / "a.glb", "glb", mesh, {}, Layout())
        assert any(words in line for line in check(tmp_path / "a.glb")["problems"]), words
    write_mesh(tmp_path / "a.glb", "glb", replace(good, faces=good.faces[3:]), {}, Layout())
    assert check(tmp_path / "a.glb")["watertight"] is False
    trimesh.Trimesh(good.vertices, good.faces, process=False).export(tmp_path / "plain.glb")
    assert check(tmp_path / "plain.glb")["texture_map"]["present"] is False
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[9, 9, 9, 255])
    shiny = trimesh.Trimesh(good.vertices, good.faces, visual=trimesh.visual.TextureVisuals(good.uv, material))
    shiny.export(tmp_path / "metal.glb")
    assert any("metallicFactor is 1" in line for line in check(tmp_path / "metal.glb")["problems"])


def test_crowded_edges_and_missing_files_are_told(tmp_path: Path) -> None:
    fan = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nv 0 -1 0\nf 1 2 3\nf 1 2 4\nf 1 2 5\n"
    (tmp_path / "fan.obj").write_text("mtllib gone.mtl\n" + fan)
    report = check(tmp_path / "fan.obj")
    assert report["crowded_edges"] == 1
    assert report["problems"] == ["gone.mtl, which it names, is not there; what it holds is left grey"]


def test_coverage_and_overlap_are_measured(tmp_path: Path) -> None:
    quad = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    normals = np.float32([[0, 0, 1]] * 4)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    uv = np.float32([[0, 0.5], [0.5, 0.5], [0.5, 0], [0, 0]])
    one = Mesh(quad, faces, normals, uv, sphere().texture)
    for mesh, used, overlap in ((one, 0.25, 0.0), (joined(one, moved(one, 0, 0, 1)), 0.25, 1.0)):
        write_mesh(tmp_path / "a.glb", "glb", mesh, {}, Layout())
        found = check(tmp_path / "a.glb")["texture_map"]
        assert (found["used"], found["overlap"]) == pytest.approx((used, overlap), abs=0.01)


def test_a_print_is_the_largest_shell_alone_with_a_flat_base() -> None:
    small, large = moved(sphere(0.1), 2, 0, 0), sphere()
    mesh, remarks = printable(joined(small, large), flat_base=True)
    assert "left out 1 smaller shells, 0.8%" in remarks[0]
    assert mesh.surface.closed and shells(mesh.surface).max() == 0
    low, high = mesh.vertices[:, 1].min(), mesh.vertices[:, 1].max()
    assert (low, high) == pytest.approx((-0.48, 0.5), abs=1e-3)
    corners = mesh.vertices[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    base = (corners[..., 1] < low + 1e-6).all(1)
    assert base.any() and (across[base, 1] < 0).all()
    hollow = joined(sphere(), replace(sphere(0.3), faces=sphere().faces[:, ::-1].copy()))
    assert printable(hollow, False)[0].surface.volume == pytest.approx(sphere().surface.volume, rel=1e-3)
    assert shells(welded(hollow)[0]).max() == 1
    with pytest.raises(ValueError, match="not one closed shell"):
        printable(replace(sphere(), faces=sphere().faces[5:]), False)


def test_likeness_is_perfect_for_itself_and_knows_colours() -> None:
    mesh = sphere()
    same = mesh_fidelity(StaticMeshScene(mesh), mesh, views=4, size=48)
    assert (same.iou, same.delta_e) == (1, 0) and same.psnr == 100
    grey = [replace(mesh, texture=np.full_like(mesh.texture, level)) for level in (100, 120)]
    apart = mesh_fidelity(StaticMeshScene(grey[0]), grey[1], views=4, size=48)
    assert apart.psnr == pytest.approx(20 * np.log10(255 / 20), abs=0.5)  # borders are half covered
    wanted_colours = lab(torch.tensor([[100, 100, 100], [120, 120, 120]]) / 255)
    assert apart.delta_e == pytest.approx(float((wanted_colours[0] - wanted_colours[1]).norm()), rel=0.02)
    smaller = mesh_fidelity(StaticMeshScene(mesh), sphere(0.4), views=4, size=96)
    assert smaller.iou == pytest.approx(0.64, abs=0.04)


def test_cielab_of_known_colours() -> None:
    known = {
        (1.0, 1.0, 1.0): (100, 0, 0),
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.2),
        (0.0, 0.0, 1.0): (32.3, 79.19, -107.86),
    }
    for srgb, values in known.items():
        assert lab(torch.tensor([srgb]))[0].tolist() == pytest.approx(values, abs=0.05)


def test_targets_know_their_formats_axes_and_units() -> None:
    for name, target in TARGETS.items():
        for kind in target.kinds:
            asked = resolve_options(name, kind)
            assert asked.layout.origin == "ground"
            if kind in ("glb", "gltf"):
                assert (asked.layout.up, asked.layout.unit) == ("y", "m")
    assert resolve_options("unreal", "usda").layout == Layout("z", "cm", "ground")
    assert resolve_options("maya", None).kind == "obj" and resolve_options("maya", None).layout.unit == "cm"
    assert resolve_options("print", None).layout == Layout("z", "mm", "ground", 0.1)
    assert resolve_options("unity", None).faces == 10_000
    with pytest.raises(ValueError, match="--target print takes 3mf, stl, ply; glb was asked for"):
        resolve_options("print", "glb")
    for bad, words in (
        ({"lods": 0}, "lods is 0"),
        ({"flat_base": True}, "goes with --target print"),
        ({"kind": "splat", "faces": 9}, "holds no mesh"),
        ({"degree": 3}, "--sh-degree goes with"),
        ({"kind": "gbl"}, "did you mean glb"),
    ):
        with pytest.raises(ValueError, match=words):
            ExportOptions(**bad)  # type: ignore[arg-type]


def test_files_that_cannot_be_checked_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.fbx").write_bytes(b"x")
    (tmp_path / "a.glb").write_bytes(b"glTF nothing")
    (tmp_path / "a.stl").write_bytes(b"")
    (tmp_path / "a.3mf").write_bytes(b"PK")
    (tmp_path / "dots.ply").write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
                                       "property float z\nend_header\n0 0 0\n")  # fmt: skip
    for name, words in {
        "a.fbx": "expected a mesh",
        "a.glb": "no glTF file",
        "a.stl": "0 bytes",
        "a.3mf": "cannot be read as 3MF",
        "dots.ply": "no triangles",
        "gone.glb": "there is no file",
    }.items():
        assert main(["check", str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1, said
    with pytest.raises(ValueError, match="no triangles"):
        read(tmp_path / "dots.ply")


def test_check_answers_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mesh(tmp_path / "a.glb", "glb", sphere(), FACTS, Layout())
    assert main(["check", str(tmp_path / "a.glb"), "--json"]) == 1  # front and back share the texture
    assert json.loads(capsys.readouterr().out)["faces"] == len(sphere().faces)
    assert main(["check", str(tmp_path / "a.glb")]) == 1
    assert "watertight" in capsys.readouterr().out
    scene = SplatConfig(init_count=20).build("cpu", torch.Generator().manual_seed(0))
    write_splat_glb(tmp_path / "s.glb", scene, FACTS)
    assert main(["check", str(tmp_path / "s.glb"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splats"] == 20 and report["origin"] == FACTS


@pytest.mark.parametrize("named", ["../secret.usda", "{outside}", "http://127.0.0.1:9/a.usda"])
def test_a_stage_put_together_from_outside_is_refused(named: str, tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    (tmp_path / "own").mkdir()
    laid, secret = Layout().apply(signpost()), tmp_path / "secret.usda"
    write_mesh(secret, "usda", laid, FACTS, Layout())
    place = named.format(outside=secret)
    for words in (f"( subLayers = [@{place}@] )", f'def "a" ( references = @{place}@ )\n{{\n}}'):
        (tmp_path / "own" / "a.usda").write_text(f"#usda 1.0\n{words}\n")
        with pytest.raises(ValueError, match="is outside its own folder and is not read"):
            check(tmp_path / "own" / "a.usda")
    (tmp_path / "own" / "b.usda").write_text(secret.read_text())
    (tmp_path / "own" / "a.usda").write_text("#usda 1.0\n( subLayers = [@b.usda@] )\n")
    assert check(tmp_path / "own" / "a.usda")["faces"] == 54


def test_a_damaged_stage_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    (tmp_path / "a.usda").write_text("#usda 1.0\ndef Mesh {")
    assert "it is damaged" in check_reader(check, tmp_path / "a.usda")
    (tmp_path / "a.usdc").write_bytes(b"PXR-USDC" + bytes(200))
    assert "it is damaged" in check_reader(check, tmp_path / "a.usdc")


def test_no_validator_is_run_out_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("node"):
        pytest.skip("no node here")
    (tmp_path / "node_modules" / "gltf-validator").mkdir(parents=True)
    trap = "require('fs').writeFileSync('run.txt', 'x')"
    (tmp_path / "node_modules" / "gltf-validator" / "index.js").write_text(trap)
    write_mesh(tmp_path / "a.glb", "glb", sphere(), FACTS, Layout())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FOLDER, raising=False)
    assert "was not asked" in verdict(tmp_path / "a.glb")["validator"]
    assert not (tmp_path / "run.txt").exists()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    verdict(tmp_path / "a.glb")
    assert (tmp_path / "run.txt").exists()


def test_validators_that_are_missing_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mesh(tmp_path / "a.glb", "glb", sphere(), FACTS, Layout())
    monkeypatch.setenv("PATH", "")
    assert "was not asked" in verdict(tmp_path / "a.glb")["validator"]
    assert verdict(tmp_path / "a.obj") == {"validator": "none for this format"}
