"""From a file that sds3d wrote to the run it came from, and whether that run gives the same once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs import serialization
from configs.run import RunConfig
from sds3d.formats.mesh_reader import facts_of
from sds3d.formats.metadata import SIDECAR_SUFFIXES, sidecar_path
from sds3d.runs.provenance import fingerprint, prior_checksum, versions
from sds3d.runs.result import Result
from sds3d.runs.run_directory import RunDirectory


def config_from_file(file: Path, trust: bool = False) -> tuple[dict[str, Any], RunConfig]:
    """What a file says of its origin, and the run that it asks for, with as many steps as were done.

    `trust` as in `configs.serialization.load`.

    Raises OSError where it cannot be read, ValueError where it does not say enough.
    """
    facts = facts_of(file)
    if facts is None and file.suffix.lower() in SIDECAR_SUFFIXES:
        raise ValueError(
            f"{file.suffix[1:].lower()} files have no room for their origin, and there is no {sidecar_path(file).name} "
            f"that belongs to {file.name}; take the run's GLB, PLY, 3MF or USD"
        )
    if not facts or not isinstance(facts.get("run"), str):
        raise ValueError(f"{file.name} does not say which run it came from; sds3d has to have written it")
    row = serialization.from_yaml(facts["run"], file.name, trust)
    return facts, row


def differences(facts: dict[str, Any], config: RunConfig) -> list[str]:
    """Lines on what is not as it was: each may change the result."""
    lines = []
    then, now = facts.get("versions"), versions()
    for name, value in (then if isinstance(then, dict) else {}).items():
        if now.get(name) != value:
            lines.append(f"{name} was {value} and is {now.get(name, 'unknown')}: the result may differ in detail")
    if facts.get("prior_sha256", "") != prior_checksum(config.prior):
        lines.append(f"the prior {config.prior} has other weights than it had: the result will differ")
    if facts.get("steps") != config.steps:
        lines.append(f"the file was made after {facts.get('steps')} of {config.steps} steps; all of them are done now")
    return lines


def same(facts: dict[str, Any], folder: Path, trust: bool = False) -> tuple[bool, str]:
    """Whether the run in `folder` gave the scene that a file came from, and how to say so."""
    record = RunDirectory.open(folder, trust)
    state, _ = record.latest()
    made = Result.from_state(state, record.config())
    if fingerprint(made.scene) == facts.get("scene_sha256"):
        return True, "the scene is the same, bit for bit"
    return False, "the scene is not the same bit for bit; on another machine or version small differences are usual"
