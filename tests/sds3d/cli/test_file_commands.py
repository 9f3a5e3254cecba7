"""`sds3d export` and `sds3d reproduce`, from the words of a command to files that are right, or to one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import serialization
from configs.run import RunConfig
from renderers.images.scene import ImageConfig
from renderers.meshes.config import MeshConfig
from renderers.meshes.mesh import Mesh
from sds3d.__main__ import main
from sds3d.export.check import check
from sds3d.export.export import export, mesh_for
from sds3d.export.export_mesh import ExportMesh, build_export_mesh
from sds3d.export.targets import FORMATS, TARGETS, ExportOptions, resolve_options
from sds3d.export.turntable import write_turntable
from sds3d.formats.mesh_reader import facts_of, read
from sds3d.formats.splat_ply import read_splats
from sds3d.models.loading import load_prior
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.trainer import Trainer
from tests.support.sds3d.command_line import Captured, refused


@pytest.fixture(scope="module")
def small(prior_folder: Path) -> RunConfig:
    from guidance.objectives.differences.sds import SDS
    from renderers.meshing.extraction import MeshExtractionConfig
    from renderers.splats.config import SplatConfig

    return RunConfig(
        "a red teddy bear",
        prior=str(prior_folder),
        objective=SDS(2.0, "reconstruction", guidance_rescale=0.5),
        scene=SplatConfig(init_count=400, init_opacity=0.9),
        mesh_extraction=MeshExtractionConfig(
            faces=500, texture_size=64, resolution=32, views=3, silhouette_size=32, texture_render_size=48
        ),
        steps=2,
        batch_size=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def made(small: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run after its last step, without what `finish` writes."""
    run = Trainer(small, load_prior(small.prior, torch.device("cpu")), torch.device("cpu"))
    record = RunDirectory.new(tmp_path_factory.mktemp("runs") / "run", small)
    for _ in run.steps():
        pass
    record.checkpoint(run.step, run.training_state())
    return record.folder


@pytest.fixture(scope="module")
def mesh(made: Path) -> Mesh:
    record = RunDirectory.open(made)
    return mesh_for(Result.from_state(record.latest()[0], record.config()))


@pytest.fixture
def made_before(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mesh is not made anew each time, and films are short."""
    monkeypatch.setattr("sds3d.export.export.build_export_mesh", lambda *_: ExportMesh(mesh))
    monkeypatch.setattr("sds3d.export.export.write_turntable", partial(write_turntable, frames=6, size=64))


def told(words: list[str], capsys: Captured) -> list[dict[str, object]]:
    assert main([*words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("made_before")
@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_file_comes_out_of_a_run(made: Path, tmp_path: Path, kind: str, capsys: Captured) -> None:
    if kind.startswith("usd"):
        pytest.importorskip("pxr")
    path = tmp_path / f"bear.{FORMATS[kind].ending}"
    (row,) = told(["export", str(made), "--format", kind, "--to", str(path)], capsys)
    assert row["file"] == str(path) and row["bytes"] == path.stat().st_size > 0
    if FORMATS[kind].content == "mesh":
        assert row["verified"] is True and set(row["mesh_against_scene"]) == {"iou", "psnr", "colour_difference"}
        assert check(path)["faces"] == row["faces"]
    if kind in ("gif", "webp"):
        with Image.open(path) as film:
            assert film.n_frames == 2 and film.size == (64, 64)
    facts = facts_of(path)
    assert facts is not None and facts["prompt"] == "a red teddy bear", "every kind says where it is from"
    assert serialization.from_yaml(facts["run"], kind) == RunDirectory.open(made).config()


@pytest.mark.usefixtures("made_before")
@pytest.mark.parametrize("target", TARGETS)
def test_targets_stand_on_the_ground_in_their_own_frame(made: Path, tmp_path: Path, target: str) -> None:
    row = tmp_path / f"bear.{TARGETS[target].kinds[0]}"
    assert main(["export", str(made), "--target", target, "--to", str(row), "--quiet"]) == 0
    found, layout = read(row), resolve_options(target, None).layout
    upright = layout.unrotate(found.vertices)
    assert upright[:, 1].min() == pytest.approx(0, abs=1e-5)
    middle = upright.min(0) + upright.max(0)
    assert middle[[0, 2]] == pytest.approx([0, 0], abs=1e-3)
    if target == "print":
        assert np.ptp(upright, axis=0).max() == pytest.approx(100, rel=1e-4)
        report = check(row)
        assert report["watertight"] and report["components"] == 1 and report["axis"] == {"up": "z", "unit": "mm"}


def test_sizes_and_levels_of_detail_are_as_asked(made: Path, tmp_path: Path, capsys: Captured) -> None:
    words = [
        "export",
        str(made),
        "--to",
        str(tmp_path / "b.glb"),
        "--lods",
        "3",
        "--size-m",
        "0.5",
        "--origin",
        "centre",
    ]
    rows = told([*words, "--texture-size", "32"], capsys)
    assert [Path(str(row["file"])).name for row in rows] == ["b.glb", "b_lod1.glb", "b_lod2.glb"]
    counts = [len(read(Path(str(row["file"]))).faces) for row in rows]
    assert counts[0] > counts[1] > counts[2] and counts[2] < 0.4 * counts[0]
    for row in rows:
        found = read(Path(str(row["file"])))
        assert np.ptp(found.vertices, axis=0).max() == pytest.approx(0.5, rel=1e-5)
        assert found.images["color"] == (32, 32)


def test_a_game_engine_gets_few_faces_with_the_light_of_many(small: RunConfig, tmp_path: Path) -> None:
    """A normal map where it helps, by itself for some programs, by word for others; tangents beside it."""
    scene = small.scene.build("cpu", torch.Generator().manual_seed(0))
    made, asked = Result(scene, small, 2), resolve_options("unity", None)
    (file,) = export(made, replace(asked, faces=80, texture=64), tmp_path / "a.glb")
    assert any("normal map: without it the normals were" in remark for remark in file.remarks)
    found = check(tmp_path / "a.glb")
    assert "normal" in found["textures"] and "metallic_roughness" not in found["textures"]
    assert found["material"]["metallicFactor"] == 0 and found["material"]["roughnessFactor"] == 0.902
    bare = build_export_mesh(made, replace(asked, faces=80, texture=64, normal_map=False))
    assert bare.mesh.maps is None and bare.remarks == ()
    finer = build_export_mesh(made, replace(resolve_options("blender", None), refine=3))
    assert finer.mesh.maps is None and finer.remarks == ("texture refined by 3 pictures",)


@pytest.mark.parametrize("kind", ["obj", "usdz"])
def test_quads_stay_quads(small: RunConfig, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyinstantmeshes")
    if kind == "usdz":
        pytest.importorskip("pxr")
    scene = small.scene.build("cpu", torch.Generator().manual_seed(0))
    path = tmp_path / f"a.{kind}"
    (file,) = export(Result(scene, small, 2), replace(resolve_options(None, kind), quad=True), path)
    report = check(path)
    assert report["faces"] == file.faces and report["quads"] > 0.6 * report["faces"] > 50
    assert report["normals"]["turned"] < 0.05 and any("quads, and" in remark for remark in file.remarks)


def test_splats_are_padded_and_say_where_they_are_from(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.ply"
    words = ["export", str(made), "--format", "splat-ply", "--sh-degree", "3", "--to", str(path), "--quiet"]
    assert main(words) == 0
    assert read_splats(path).sh.shape[1] == 16
    facts = facts_of(path)
    assert facts is not None and facts["objective"] == "sds" and facts["prior_sha256"]


def test_a_file_is_enough_to_make_its_run_once_more(
    made: Path, small: RunConfig, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds3d.training.finalize.write_turntable", partial(write_turntable, frames=4, size=64))
    path = tmp_path / "b.glb"
    told(["export", str(made), "--to", str(path)], capsys)
    facts = facts_of(path)
    assert facts is not None and serialization.from_yaml(facts["run"]) == small
    assert main(["reproduce", str(path), "--out", str(tmp_path / "again")]) == 0
    assert "the scene is the same, bit for bit" in capsys.readouterr().out
    assert (tmp_path / "again" / "asset.glb").stat().st_size > 0


@pytest.mark.usefixtures("made_before")
def test_what_has_changed_since_is_told(
    made: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds3d.cli.commands.finalize", lambda _, record, *__: record.folder)
    path = tmp_path / "b.gltf"
    told(["export", str(made), "--format", "gltf", "--to", str(path)], capsys)
    tree = json.loads(path.read_text())
    extras = tree["asset"]["extras"]
    extras["versions"]["torch"], extras["prior_sha256"], extras["scene_sha256"] = "1.0", "0", "0"
    path.write_text(json.dumps(tree))
    assert main(["reproduce", str(path), "--out", str(tmp_path / "again")]) == 1
    said = capsys.readouterr().out
    assert "torch was 1.0 and is" in said and "has other weights" in said and "not the same bit for bit" in said


def test_mistakes_end_in_one_line_and_leave_nothing(made: Path, tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "out"
    for words, said in (
        (["--to", str(target / "a.xyz")], "a.xyz is no name for glb"),
        (["--format", "fbx"], "invalid choice: 'fbx'"),
        (["--target", "print", "--format", "glb"], "--target print takes 3mf, stl, ply"),
        (["--up", "z"], "glTF has Y up and metres, always"),
        (["--format", "3mf", "--up", "y"], "3MF has Z up"),
        (["--format", "splat", "--size-m", "1"], "holds no mesh"),
        (["--format", "gif", "--lods", "2"], "holds no mesh"),
        (["--lods", "9"], "lods is 9"),
        (["--flat-base"], "goes with --target print"),
        (["--sh-degree", "3"], "goes with --format splat-ply"),
        (["--quad"], "--quad goes with obj, usda, usdz; glb is written in triangles"),
        (["--quad", "--format", "obj", "--lods", "2"], "leave out --lods"),
        (["--normal-map", "--format", "ply"], "--normal-map goes with glb, gltf, obj"),
        (["--refine-texture", "5", "--format", "stl"], "meshes that have colours"),
        (["--refine-texture", "-1"], "--refine-texture is -1"),
        (["--faces", "5000000"], "faces is 5000000; it lies between 50 and 1000000"),
        (["--texture", "4"], "texture_size is 4"),
        (["--size-m", "0"], "size_m is 0; expected the longest side in metres"),
    ):
        where = [] if "--to" in words else ["--to", str(target / f"a.{_ending(words)}")]
        assert said in refused(["export", str(made), *words, *where], capsys), words
    assert not target.exists() or not list(target.iterdir())
    (tmp_path / "a.stl").write_bytes(b"x")
    (tmp_path / "a.glb").write_bytes(b"{}")
    assert "no room for their origin" in refused(["reproduce", str(tmp_path / "a.stl")], capsys)
    assert "does not say which run" in refused(["reproduce", str(tmp_path / "a.glb")], capsys)
    assert "there is no file" in refused(["reproduce", str(tmp_path / "b.glb")], capsys)


def _ending(words: list[str]) -> str:
    kind = words[words.index("--format") + 1] if "--format" in words else "glb"
    return FORMATS[kind].ending if kind in FORMATS else "glb"


@pytest.mark.usefixtures("made_before")
def test_a_target_that_is_a_folder_or_lies_in_a_file_is_refused(made: Path, tmp_path: Path, capsys: Captured) -> None:
    """Read-only places are told the same way; who runs the tests may be allowed to write anywhere."""
    (tmp_path / "folder.glb").mkdir()
    (tmp_path / "file").write_text("")
    assert "is a folder" in refused(["export", str(made), "--to", str(tmp_path / "folder.glb")], capsys)
    assert "file" in refused(["export", str(made), "--to", str(tmp_path / "file" / "a.glb")], capsys)


@pytest.mark.parametrize("spoilt", ["nothing", "faint", "nan"])
def test_scenes_that_give_no_mesh_are_refused(small: RunConfig, tmp_path: Path, spoilt: str) -> None:
    scene = small.scene.build("cpu", torch.Generator().manual_seed(0))
    with torch.no_grad():
        match spoilt:
            case "faint":
                scene.logit_opacities.fill_(-9)
            case "nan":
                scene.means.fill_(float("nan"))
            case "nothing":
                scene.means.add_(100)
    with pytest.raises(ValueError, match=r"empty|too faint|no surface"):
        export(Result(scene, small, 2), ExportOptions(), tmp_path / "a.glb")
    picture = ImageConfig().build("cpu", torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="has no mesh"):
        export(Result(picture, replace(small, scene=ImageConfig()), 2), ExportOptions(), tmp_path / "a.glb")
    with pytest.raises(ValueError, match="holds splats, and this run's scene has none"):
        export(
            Result(picture, replace(small, scene=ImageConfig()), 2),
            resolve_options(None, "splat"),
            tmp_path / "a.splat",
        )
    assert not list(tmp_path.iterdir())


def test_a_mesh_with_maps_is_not_robbed_of_them(small: RunConfig) -> None:
    for light in ("none", "studio"):
        knobs = MeshConfig(faces=300, texture_size=64, light=light)  # type: ignore[arg-type]
        scene = knobs.build("cpu", torch.Generator().manual_seed(0))
        made = Result(scene, replace(small, scene=knobs), 1)
        whole = mesh_for(made)
        assert (whole.maps is not None) == (light == "studio")
        assert len(mesh_for(made, len(whole.faces), 64).faces) == len(whole.faces)
        less = mesh_for(made, 100)
        assert len(less.faces) <= 100 and (less.maps is None) == (whole.maps is None)
        assert mesh_for(made, None, 32).texture.shape[0] == 32
        if less.maps is not None and whole.maps is not None:
            assert (less.maps.roughness == whole.maps.roughness[0, 0]).all()
        with pytest.raises(ValueError, match="faces is 5000000"):
            mesh_for(made, 5_000_000)


@pytest.mark.usefixtures("made_before")
def test_a_disk_that_is_full_is_told_and_the_old_file_stays(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    path = tmp_path / "a.glb"
    path.write_text("old")
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    said = refused(["export", str(made), "--to", str(path)], capsys)
    assert f"{path}: no space left" in said
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
    shutil.rmtree(tmp_path)
