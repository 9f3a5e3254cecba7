"""What is left of a run when its steps are done: splats, mesh, pictures, report."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from renderers.images.scene import PictureScene
from renderers.meshes.mesh import MeshScene
from renderers.scene import TrainableScene
from renderers.splats.scene import SplatScene
from sds3d.atomic_files import write_bytes
from sds3d.console import Console, memory_mb
from sds3d.evaluation.mesh_fidelity import likeness
from sds3d.evaluation.scene_evaluation import verdict
from sds3d.export.export import about, mesh_for, write_mesh
from sds3d.export.turntable import write_contact, write_turntable
from sds3d.formats.layout import PLAIN
from sds3d.formats.splat_ply import write_splats
from sds3d.runs.provenance import licences, provenance, versions
from sds3d.runs.result import Result
from sds3d.runs.run_directory import Record
from sds3d.training.finalize_image import finish_picture


def finish(made: Result, record: Record, console: Console, optimised_seconds: float) -> Path:
    """Writes everything into the run's folder and returns the path of the asset.

    Raises:
        ValueError: the scene has nothing a mesh could be made of.
    """
    began = time.monotonic()
    folder, config = record.folder, made.config
    if isinstance(made.scene, PictureScene):
        return finish_picture(made, record, console, optimised_seconds)
    if isinstance(made.scene, SplatScene):
        write_splats(folder / "splats.ply", made.scene, facts=provenance(made))
    with torch.no_grad():
        mesh = mesh_for(made)
        meshed = time.monotonic()
        match = likeness(made.scene, mesh)
        write_mesh(folder / "asset.glb", "glb", made.placed(mesh), about(made, match, PLAIN), PLAIN)
        for number, other in enumerate(made.others, 2):
            _beside(folder / f"asset_{number}.glb", other, made, console)
        shown = MeshScene(mesh)
        facts = provenance(made, match)
        write_turntable(folder / "turntable.mp4", shown, facts=facts)
        write_contact(folder / "contact.png", shown, facts=facts)
        judged = verdict(shown, config.prompt)
    now = time.monotonic()
    report: dict[str, object] = {
        "prompt": config.prompt,
        "steps": made.done,
        "seconds": {
            "optimisation": round(optimised_seconds, 2),
            "mesh": round(meshed - began, 2),
            "pictures_and_checks": round(now - meshed, 2),
        },
        "checkpoints": record.checkpoints(),
        "peak_memory_mb": round(memory_mb()[1]),
        "scene": made.scene.told(),
        "mesh": {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "texture": mesh.texture.shape[0]},
        "mesh_against_scene": match.told(),
        "judge": judged,
        "versions": versions(),
        "licences": licences(config),
    }
    write_bytes(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    console.say(f"mesh of {len(mesh.faces)} faces; it matches the scene with {match}", **match.told())
    if judged:
        count = judged["janus"]["fronts"] or 0
        console.say(
            f"the judge takes {judged['recognised']} of {judged['views']} views for a {judged['subject']}"
            + (f" and finds {count} fronts" if count > 1 else "")
        )
    return folder / "asset.glb"


def _beside(target: Path, scene: TrainableScene, made: Result, console: Console) -> None:
    """The mesh of a further particle; one that has none is told, but does not end the run."""
    try:
        one = replace(made, scene=scene)
        mesh = mesh_for(one)
        write_mesh(target, "glb", one.placed(mesh), about(one, likeness(scene, mesh), PLAIN), PLAIN)
    except ValueError as nothing:
        console.say(f"no {target.name}: {nothing}")
