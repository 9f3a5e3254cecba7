"""What is left of a run when its steps are done: splats, mesh, pictures, report."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from renderers.images.scene import ImageScene
from renderers.meshes.mesh import StaticMeshScene
from renderers.scene import TrainableScene
from renderers.splats.scene import SplatScene
from sds3d.atomic_files import write_bytes
from sds3d.console import Console, memory_mb
from sds3d.evaluation.mesh_fidelity import mesh_fidelity
from sds3d.evaluation.scene_evaluation import evaluate_scene
from sds3d.export.export import mesh_for, mesh_metadata, write_mesh
from sds3d.export.turntable import write_contact, write_turntable
from sds3d.formats.layout import DEFAULT_LAYOUT
from sds3d.formats.splat_ply import write_splats
from sds3d.runs.provenance import licenses, provenance, versions
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.device_usage import gpu_memory_mb
from sds3d.training.finalize_image import finalize_image
from sds3d.training.previews import unless_it_fails


def finalize(result: Result, record: RunDirectory, console: Console, optimised_seconds: float) -> Path:
    """Writes everything into the run's folder and returns the path of the asset.

    Raises:
        ValueError: the scene has nothing a mesh could be made of.
    """
    began = time.monotonic()
    folder, config = record.folder, result.config
    if isinstance(result.scene, ImageScene):
        return finalize_image(result, record, console, optimised_seconds)
    if isinstance(result.scene, SplatScene):
        write_splats(folder / "splats.ply", result.scene, facts=provenance(result))
    with torch.no_grad():
        mesh = mesh_for(result)
        meshed = time.monotonic()
        match = mesh_fidelity(result.scene, mesh)
        write_mesh(
            folder / "asset.glb",
            "glb",
            result.undo_placement(mesh),
            mesh_metadata(result, match, DEFAULT_LAYOUT),
            DEFAULT_LAYOUT,
        )
        for number, other in enumerate(result.other_particles, 2):
            _export_particle(folder / f"asset_{number}.glb", other, result, console)
        shown = StaticMeshScene(mesh)
        facts = provenance(result, match)
        write_turntable(folder / "turntable.mp4", shown, facts=facts)
        write_contact(folder / "contact.png", shown, facts=facts)
        judged = unless_it_fails("verdict of the judge", lambda: evaluate_scene(shown, config.prompt), console)
    now = time.monotonic()
    report: dict[str, object] = {
        "prompt": config.prompt,
        "steps": result.step,
        "seconds": {
            "optimisation": round(optimised_seconds, 2),
            "mesh": round(meshed - began, 2),
            "pictures_and_checks": round(now - meshed, 2),
        },
        "checkpoints": record.checkpoints(),
        "peak_memory_mb": round(memory_mb()[1]),
        "scene": result.scene.describe(),
        "mesh": {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "texture": mesh.texture.shape[0]},
        "mesh_against_scene": match.as_dict(),
        "judge": judged,
        "versions": versions(),
        "licences": licenses(config),
    }
    if (on_gpu := gpu_memory_mb(next(result.scene.parameters()).device)) is not None:
        report["gpu_peak_memory_mb"] = round(on_gpu[1])
    write_bytes(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    console.log(f"mesh of {len(mesh.faces)} faces; it matches the scene with {match}", **match.as_dict())
    if judged:
        count = judged["janus"]["fronts"] or 0
        console.log(
            f"the judge takes {judged['recognised']} of {judged['views']} views for a {judged['subject']}"
            + (f" and finds {count} fronts" if count > 1 else "")
        )
    return folder / "asset.glb"


def _export_particle(target: Path, scene: TrainableScene, result: Result, console: Console) -> None:
    """The mesh of a further particle; one that has none is told, but does not end the run."""
    try:
        one = replace(result, scene=scene)
        mesh = mesh_for(one)
        write_mesh(
            target,
            "glb",
            one.undo_placement(mesh),
            mesh_metadata(one, mesh_fidelity(scene, mesh), DEFAULT_LAYOUT),
            DEFAULT_LAYOUT,
        )
    except ValueError as nothing:
        console.log(f"no {target.name}: {nothing}")
