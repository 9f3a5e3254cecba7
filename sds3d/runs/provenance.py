"""What an asset says of its origin: enough to make it once more, and to know whether that gave the same."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from configs import serialization
from configs.registry import objective_name, scene_name
from configs.run import RunConfig
from guidance.priors.mini.prior import FOLDER
from guidance.priors.mini3d.prior import FOLDER as FOLDER_3D
from guidance.priors.precision import cpu_has_bfloat16
from renderers import kernels
from renderers.scene import TrainableScene
from sds3d.evaluation.mesh_fidelity import MeshFidelity
from sds3d.formats.layout import Facts
from sds3d.models.loading import MINI, MINI_FLOW, SOLID, TOY
from sds3d.models.registry import MODELS
from sds3d.runs.result import Result

_SHIPPED = "Apache-2.0; trained on renders of CC0 and CC BY 3.0 models, credits in its NOTICE"
OWN_LICENSES = {MINI: _SHIPPED, SOLID: _SHIPPED, MINI_FLOW: _SHIPPED, TOY: "Apache-2.0"}
_UNKNOWN = "not known here; its own model card says"


def licenses(config: RunConfig) -> dict[str, str]:
    """Terms of what an asset was made with, by name. Those of models of others are what the book of models says; read
    the model's own before selling anything."""
    return {"sds3d": "Apache-2.0", f"prior {config.prior}": prior_license(config.prior)} | {
        f"{what} {Path(file).name}": _UNKNOWN
        for what in ("lora", "textual_inversion", "ip_adapter", "vae")
        if (file := getattr(config.prior_options, what))
    }


def prior_license(name: str) -> str:
    """Terms of a prior, in a line."""
    if name in OWN_LICENSES:
        return OWN_LICENSES[name]
    for short, model in MODELS.items():
        if name == short or name in model.sources:
            return f"{model.licence}; commercial use: {model.commercial}"
    return _UNKNOWN


def provenance(made: Result, match: MeshFidelity | None = None) -> Facts:
    """What an asset says of itself; `match` is how alike it and the scene that it was made from look."""
    config = made.config
    facts: dict[str, object] = {
        "prompt": config.prompt,
        "negative": config.negative_prompt,
        "seed": config.seed,
        "steps": made.step,
        "objective": objective_name(config.objective),
        "scene": scene_name(config.scene),
        "prior": config.prior,
        "prior_sha256": prior_checksum(config.prior),
        "scene_sha256": fingerprint(made.scene),
        "sds3d": versions()["sds3d"],
        "versions": versions(),
        "licences": licenses(config),
        "run": serialization.to_yaml(config),
    }
    if match is not None:
        facts["mesh_against_scene"] = match.as_dict()
    return facts


def prior_checksum(name: str) -> str:
    """SHA-256 over the files of a prior that lies in a folder; empty for any other."""
    folder = {MINI: FOLDER, MINI_FLOW: FOLDER, SOLID: FOLDER_3D}.get(name, Path(name))
    digest = hashlib.sha256()
    weights = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    for file in weights:
        digest.update(file.read_bytes())
    return digest.hexdigest() if weights else ""


def fingerprint(scene: TrainableScene) -> str:
    """SHA-256 over all that a scene is, its chance included: equal only where runs gave the same bit for bit."""
    digest = hashlib.sha256()
    for name, value in sorted(scene.training_state().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()


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
    found = kernels.library()
    return "torch" if found is None else Path(found._name).stem
