"""Meshes as scenes on the command line: a run's mesh trained on, somebody's mesh painted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from renderers.meshes.config import MeshConfig
from renderers.meshes.welded_mesh import cube_sphere
from sds3d.__main__ import main
from sds3d.formats.mesh_reader import read
from sds3d.mesh_import.load import load_mesh
from sds3d.runs.run_directory import RunDirectory
from tests.support.sds3d.command_line import Captured, short_films

SHORT = ["--steps", "3", "--batch-size", "1", "--device", "cpu", "--scene.texture-size", "32", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def _short_films() -> Iterator[None]:
    with short_films():
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A ball as an OBJ file without colours, far from the origin."""
    mesh = cube_sphere(0.4, 300, 16)
    file = tmp_path / "ball.obj"
    lines = [f"v {x} {y} {z}" for x, y, z in mesh.vertices + np.array([5.0, 0.0, 0.0])]
    file.write_text("\n".join([*lines, *(f"f {a} {b} {c}" for a, b, c in mesh.faces + 1)]))
    return file


def test_a_model_is_painted_and_keeps_its_shape(model: Path, prior_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "painted"
    assert main(["texture", str(model), "a red mug", "--prior", str(prior_folder), *SHORT, "--out", str(out)]) == 0
    asked = RunDirectory.open(out).config()
    assert asked.prompt == "a red mug" and Path(asked.init_mesh) == model
    assert isinstance(asked.scene, MeshConfig) and not asked.scene.train_geometry and asked.scene.repaint
    before, after = load_mesh(model).mesh, load_mesh(out / "asset.glb").mesh
    assert len(before.faces) == len(after.faces)
    np.testing.assert_allclose(before.vertices.mean(0), after.vertices.mean(0), atol=0.01)
    # It lies where it lay, in its own size: around (5, 0, 0), with a radius of 0.4.
    lies = read(out / "asset.glb").vertices
    np.testing.assert_allclose(np.ptp(lies, 0), 0.8, rtol=0.05)
    np.testing.assert_allclose((lies.min(0) + lies.max(0)) / 2, (5.0, 0.0, 0.0), atol=0.02)
    assert after.texture.std() > 0, "it was grey all over"
    # Taken up again it needs no model: the checkpoint holds the mesh.
    model.unlink()
    assert main(["resume", str(out), "--steps", "4", "--quiet"]) == 0
    assert json.loads((out / "report.json").read_text())["steps"] == 4
    np.testing.assert_allclose(np.ptp(read(out / "asset.glb").vertices, 0), 0.8, rtol=0.05)
    assert main(["export", str(out), "--format", "obj", "--to", str(tmp_path / "mug.obj"), "--quiet"]) == 0
    np.testing.assert_allclose(read(tmp_path / "mug.obj").vertices.mean(0), (5.0, 0.0, 0.0), atol=0.05)


def test_the_mesh_of_a_run_is_trained_on(model: Path, prior_folder: Path, tmp_path: Path) -> None:
    painted, refined = tmp_path / "painted", tmp_path / "refined"
    assert main(["texture", str(model), "a red mug", "--prior", str(prior_folder), *SHORT, "--out", str(painted)]) == 0
    assert main(["refine", str(painted), *SHORT, "--out", str(refined)]) == 0
    asked = RunDirectory.open(refined).config()
    assert (asked.prompt, asked.prior) == ("a red mug", str(prior_folder))
    assert isinstance(asked.scene, MeshConfig) and asked.scene.train_geometry
    assert (refined / "asset.glb").is_file()


def test_what_cannot_be_painted_is_refused(model: Path, tmp_path: Path, capsys: Captured) -> None:
    nothing = tmp_path / "nothing.obj"
    nothing.write_text("v 0 0 0\n")
    for words, told in (
        (["texture"], "the MODEL to start from is missing"),
        (["texture", str(tmp_path / "none.glb"), "a mug"], "none.glb"),
        (["texture", str(nothing), "a mug"], "nothing.obj"),
        (["refine"], "the RUN to start from is missing"),
        (["refine", str(tmp_path)], "is not the folder of a run"),
        (["generate", "a mug", "--init-mesh", str(model)], "give --scene mesh"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert told in error and len(error.splitlines()) == 1, words
