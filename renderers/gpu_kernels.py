"""The compiled parts of gsplat and nerfacc, which draw on a GPU: built at first use, or done without.

From the package index both come as sources that nvcc compiles on the machine, in some minutes, once. `--renderer torch`
does without them: the plain torch references draw on the GPU too, slower, and large scenes take much memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Renderer = Literal["auto", "torch"]

BACKENDS = {"gsplat": "gsplat.cuda._backend", "nerfacc": "nerfacc.cuda._backend"}
"""Where each keeps its compiled part, which importing this builds."""
WAYS_OUT = (
    "install the CUDA toolkit of torch's own version (nvcc) and g++, or a wheel of {library} that was built for this "
    "torch, or give --renderer torch, which needs neither and is slower"
)
_choice: Renderer = "auto"


def choose(renderer: Renderer) -> None:
    """Decides for this process what draws on a GPU."""
    global _choice
    _choice = renderer


def wanted() -> bool:
    """Whether gsplat and nerfacc draw on a GPU, and not the torch references."""
    return _choice == "auto"


def make_ready(library: str, say: Callable[[str], None] | None = None) -> None:
    """Builds or loads the compiled part of a library; `say` hears where that takes minutes.

    Raises ImportError, in one line with the ways out, where there is none.
    """
    if find_spec(library) is None:
        raise ImportError(
            f"{library} is not installed: pip install {library}; or give --renderer torch, which is slower"
        )
    if say is not None and BACKENDS[library] not in sys.modules and not is_built(library):
        say(f"{library}: compiling its kernels for this GPU, which takes some minutes, once")
    try:
        compiled = getattr(import_module(BACKENDS[library]), "_C", None)
    except Exception as error:  # whatever a compiler or a loader says
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ImportError(f"the kernels of {library} do not build ({first}); {_ways_out(library)}") from None
    if compiled is None:
        raise ImportError(f"{library} has no compiled kernels and finds no nvcc to build them; {_ways_out(library)}")


def is_built(library: str) -> bool:
    """Whether a compiled part lies ready: shipped with the library, or built here before."""
    if find_spec(f"{library}.csrc") is not None:
        return True
    from torch.utils.cpp_extension import get_default_build_root

    return any(Path(get_default_build_root()).rglob(f"{library}_cuda.so"))


def _ways_out(library: str) -> str:
    return WAYS_OUT.format(library=library)
