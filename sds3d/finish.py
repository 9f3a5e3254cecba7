"""What is left of a run when its steps are done: splats, mesh, pictures, report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from configs.catalog import objective_name
from configs.run import RunConfig
from guidance.precision import cpu_has_bfloat16
from renderers import native
from renderers.mesh import Mesh, MeshScene, agreement
from renderers.meshing import mesh_of
from renderers.picture import PictureScene
from renderers.scene import Scene
from renderers.splats import SplatScene
from sds3d.atomic import write_bytes
from sds3d.console import Console, memory_mb
from sds3d.distill import Result
from sds3d.export import write_glb, write_mesh_ply, write_obj
from sds3d.finish_picture import finish_picture
from sds3d.judging import verdict
from sds3d.record import Record
from sds3d.splat_files import write_splats
from sds3d.turntable import write_contact, write_turntable

FORMATS = ("glb", "obj", "ply")
"""Mesh files that `export` writes."""
LICENCES = {
    "sds3d": "Apache-2.0",
    "prior mini": "Apache-2.0; trained on renders of CC0 and CC BY 3.0 models, credits in its NOTICE",
}


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
        write_splats(folder / "splats.ply", made.scene)
    with torch.no_grad():
        mesh = mesh_of(made.scene, config.mesh)
        meshed = time.monotonic()
        write_glb(folder / "asset.glb", mesh, provenance(config, made.done))
        for number, other in enumerate(made.others, 2):
            _beside(folder / f"asset_{number}.glb", other, made, console)
        shown = MeshScene(mesh)
        write_turntable(folder / "turntable.mp4", shown)
        write_contact(folder / "contact.png", shown)
        match = agreement(made.scene, mesh)
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
        "peak_memory_mb": round(memory_mb()[1]),
        "scene": made.scene.told(),
        "mesh": {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "texture": mesh.texture.shape[0]},
        "mesh_against_scene": {"iou": round(match.iou, 4), "psnr": round(match.psnr, 2)},
        "judge": judged,
        "versions": versions(),
        "licences": LICENCES,
    }
    write_bytes(folder / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    console.say(
        f"mesh of {len(mesh.faces)} faces; it matches the scene with IoU {match.iou:.3f}, PSNR {match.psnr:.1f} dB",
        **{"iou": match.iou, "psnr": match.psnr},
    )
    if judged:
        count = judged["janus"]["fronts"] or 0
        console.say(
            f"the judge takes {judged['recognised']} of {judged['views']} views for a {judged['subject']}"
            + (f" and finds {count} fronts" if count > 1 else "")
        )
    return folder / "asset.glb"


def _beside(target: Path, scene: Scene, made: Result, console: Console) -> None:
    """The mesh of a further particle; one that has none is told, but does not end the run."""
    try:
        write_glb(target, mesh_of(scene, made.config.mesh), provenance(made.config, made.done))
    except ValueError as nothing:
        console.say(f"no {target.name}: {nothing}")


def export_mesh(
    made: Result, kind: str, target: Path, faces: int | None, texture: int | None, size_m: float | None
) -> Mesh:
    """Makes the mesh of a run anew and writes it as `kind`, one of FORMATS.

    Raises:
        ValueError: an unknown format, or a scene without a mesh.
    """
    changed = {name: value for name, value in (("faces", faces), ("texture", texture)) if value is not None}
    with torch.no_grad():
        mesh = mesh_of(made.scene, replace(made.config.mesh, **changed))
    facts = provenance(made.config, made.done)
    match kind:
        case "glb":
            write_glb(target, mesh, facts, size_m)
        case "obj":
            write_obj(target, mesh, facts, size_m)
        case "ply":
            write_mesh_ply(target, mesh, size_m)
        case _:
            raise ValueError(f"unknown format {kind!r}; known: {', '.join(FORMATS)}")
    return mesh


def provenance(config: RunConfig, steps: int) -> Mapping[str, object]:
    """What an asset says of itself."""
    return {
        "prompt": config.prompt,
        "negative": config.negative,
        "seed": config.seed,
        "steps": steps,
        "objective": objective_name(config.objective),
        "prior": config.prior,
        "sds3d": versions()["sds3d"],
        "licences": LICENCES,
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernels": _kernels(),
        "bfloat16": str(cpu_has_bfloat16()),
        **{name: of(name) for name in ("sds3d", "torch", "numpy")},
    }


def _kernels() -> str:
    """Which compiled kernels draw: the name of their library, or the torch twin."""
    found = native.library()
    return "torch" if found is None else Path(found._name).stem
