"""What a file of splats holds and what is wrong with it, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from renderers.splats.density_grid import MIN_OPACITY, SplatParameters
from sds3d.export.validators import verdict
from sds3d.formats.mesh_reader import facts_of
from sds3d.formats.splat_ply import DEGREES
from sds3d.formats.splat_reader import splats_in
from sds3d.formats.splat_writers import EXTENSION

FAR = 100.0
"""Distances from the middle, in those of the median splat, beyond which one is lost."""
_KNOWN = "the extension's own names for attributes, which this version of the validator does not know"


def check_splats(path: Path) -> dict[str, Any]:
    """The report on a file of splats. Raises as `splats_in`."""
    cloud, wrong = splats_in(path), list[str]()
    report: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, **_numbers(cloud, wrong)}
    report["axis"] = {"up": "y", "unit": "m"}
    report["verdict"] = _run_validator(path, wrong)
    origin = facts_of(path)
    kept = ("prompt", "seed", "objective", "prior", "steps", "sds3d")
    report["origin"] = {name: origin[name] for name in kept if name in origin} if origin else None
    report["problems"] = wrong
    return report


def _numbers(cloud: SplatParameters, wrong: list[str]) -> dict[str, Any]:
    count = len(cloud.means)
    told: dict[str, Any] = {"splats": count, "degree": DEGREES[cloud.sh.shape[1]]}
    if count == 0:
        wrong.append("there are no splats")
        return told
    parts = (cloud.means, cloud.log_scales, cloud.quats, cloud.logit_opacities[:, None], cloud.sh.flatten(1))
    finite = torch.cat(parts, -1).isfinite().all(-1)
    if bad := int((~finite).sum()):
        wrong.append(f"{bad} splats have values that are not finite numbers")
    if not finite.any():
        return told
    means, scales = cloud.means[finite], cloud.log_scales[finite].exp()
    opacities = torch.sigmoid(cloud.logit_opacities[finite])
    faint = opacities < MIN_OPACITY
    if bool(faint.all()):
        wrong.append("all splats are too faint to be seen")
    still = int((cloud.quats[finite].norm(dim=-1) < 1e-6).sum())
    if still:
        wrong.append(f"{still} splats have a rotation of length 0")
    away = (means - means.median(0).values).norm(dim=-1)
    lost = int((away > FAR * away.median().clamp_min(1e-9)).sum())
    if lost:
        wrong.append(f"{lost} splats lie more than {FAR:.0f} times as far out as the median one")
    low, high = means.amin(0), means.amax(0)
    return told | {
        "bounds": {"from": _rounded(low), "to": _rounded(high)},
        "size": _rounded(high - low),
        "opacity": {"median": _rounded(opacities.median())[0], "faint": round(float(faint.float().mean()), 4)},
        "scale": {name: _rounded(value)[0] for name, value in
                  (("least", scales.min()), ("median", scales.median()), ("largest", scales.max()))},
        "thin": round(float((scales.amin(-1) < 0.01 * scales.amax(-1)).float().mean()), 4),
    }  # fmt: skip


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.reshape(-1).tolist()]


def _run_validator(path: Path, wrong: list[str]) -> dict[str, Any]:
    """What a validator says, without the complaints about names that it cannot know."""
    said = verdict(path)
    if not said.get("errors"):
        return said
    real = [line for line in said["messages"] if EXTENSION not in line]
    wrong += real
    return {**said, "errors": len(real), "messages": [*real, f"left out: {_KNOWN}"]}
