"""Builds and loads the device guard, before torch asks for the first time whether there is CUDA."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_library: ctypes.CDLL | None = None
SOURCE = Path(__file__).with_name("guard.cpp")


class NoCompiler(RuntimeError):
    """The guard can not be built here."""


def load_guard() -> None:
    """Loads the guard, built once per torch version into the folder of temporary files.

    Raises:
        RuntimeError: torch is imported already.
        NoCompiler: there is no g++, or no headers of torch.
    """
    if "torch" in sys.modules:
        raise RuntimeError("the pretended CUDA device has to be installed before torch is imported")
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    global _library
    _library = ctypes.CDLL(str(_built(Path(found.origin).parent)))


def library() -> ctypes.CDLL:
    """What was built, for the functions in it."""
    assert _library is not None
    return _library


def _built(torch_folder: Path) -> Path:
    version = importlib.metadata.version("torch")
    digest = hashlib.sha256(SOURCE.read_bytes() + f"{version} {sys.version} {torch_folder}".encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"sds3d-pretend-cuda-{os.getuid()}" / f"{digest}.so"
    if library.is_file():
        return library
    compiler = shutil.which("g++")
    if compiler is None or not (torch_folder / "include").is_dir():
        raise NoCompiler("the pretended CUDA device needs g++ and the headers of torch")
    library.parent.mkdir(mode=0o700, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}")
    include, link = torch_folder / "include", torch_folder / "lib"
    flags = ["-O2", "-std=c++20", "-shared", "-fPIC", f"-I{include}", f"-I{include}/torch/csrc/api/include"]
    flags += [f"-L{link}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{link}"]
    done = subprocess.run([compiler, str(SOURCE), "-o", str(partial), *flags], capture_output=True, text=True)
    if done.returncode:
        raise NoCompiler(f"the device guard does not compile: {done.stderr[-500:]}")
    partial.replace(library)
    return library
