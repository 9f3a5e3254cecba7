"""The compiled kernels: where the shared library lies and which one this processor can run.

The sources are in renderers/csrc/, built by CMakeLists.txt. Each kernel has a plain torch twin that takes over
where no library was built. The environment variable SDS3D_KERNELS chooses by hand: `torch` (the twins), `baseline`,
`avx2` or `avx512` (with registers of sixteen floats for what gains from them); unset, the fastest that runs here.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

_CHOICES = ("avx512", "avx2", "baseline", "torch")


def library() -> ctypes.CDLL | None:
    """The kernels, or None where the torch twins have to do (`why_missing` says why).

    Raises ValueError if SDS3D_KERNELS names no known kernels.
    """
    return _loaded(_requested())[0]


def why_missing() -> str:
    """One line for the user about the missing kernels; empty if they are there."""
    return _loaded(_requested())[1]


def _requested() -> str:
    wish = os.environ.get("SDS3D_KERNELS", "")
    if wish and wish not in _CHOICES:
        raise ValueError(f"SDS3D_KERNELS is {wish!r}; it may be {', '.join(_CHOICES)}, or unset for the fastest")
    return wish


@cache
def _loaded(requested: str) -> tuple[ctypes.CDLL | None, str]:
    """The library and an empty line, or None and the reason."""
    if requested == "torch":
        return None, "SDS3D_KERNELS=torch asks for the slower torch code"
    kinds = [requested] if requested else _fastest_first()
    reasons = []
    for kind in kinds:
        for path in _candidates(f"libsds3d_{kind}.so"):
            try:
                return ctypes.CDLL(str(path)), ""
            except OSError as error:
                reasons.append(str(error))
    hint = "install sds3d where a C++ compiler is found; until then the slower torch code draws"
    return None, f"no compiled kernels ({reasons[0] if reasons else 'none were built'}): {hint}"


def _fastest_first() -> list[str]:
    """The kinds of kernels that this processor can run."""
    capability = torch.backends.cpu.get_cpu_capability() if platform.machine().lower() in ("x86_64", "amd64") else ""
    kinds = ["avx512"] if capability == "AVX512" else []
    return [*kinds, *(["avx2"] if capability.startswith("AVX") else []), "baseline"]


def _candidates(name: str) -> list[Path]:
    """Existing files of this name: beside this module, as installed with sds3d, or elsewhere on the path."""
    places = [Path(__file__).parent / name]
    try:
        installed = metadata.files("sds3d") or []
    except metadata.PackageNotFoundError:
        installed = []
    places += [Path(str(file.locate())) for file in installed if file.name == name]
    places += [Path(entry) / "renderers" / name for entry in sys.path if entry]
    return [place for place in dict.fromkeys(places) if place.is_file()]
