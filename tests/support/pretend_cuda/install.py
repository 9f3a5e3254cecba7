"""Makes torch believe in two GPUs. The first import of torch in a process has to be the one below."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

from tests.support.pretend_cuda.guard import load_guard

DEVICES = 2
NAME = "Pretended RTX 4090"
MISSING = "PRETEND_CUDA"
"""Environment variable with words of what is missing: no-gsplat, no-nerfacc."""
_installed = False


def installed() -> bool:
    """Whether this process has the pretended device."""
    return _installed


def install(memory_gib: int = 24) -> None:
    """Installs the device and the stand-ins of the kernels; calling it again changes nothing."""
    global _installed
    if _installed:
        return
    load_guard()
    _patch_torch(memory_gib << 30)
    _patch_threads()
    _patch_safetensors()
    from tests.support.pretend_cuda import gsplat_kernels, nerfacc_kernels

    missing = os.environ.get(MISSING, "").split()
    if "no-gsplat" not in missing:
        gsplat_kernels.install()
    if "no-nerfacc" not in missing:
        nerfacc_kernels.install()
    _installed = True


class Event:
    """A CUDA event on a stream that is always done."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self.enable_timing, self.at = enable_timing, 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        if not (self.enable_timing and end.enable_timing and self.at and end.at):
            raise RuntimeError("both events have to be recorded, and made with enable_timing")
        return 1e3 * (end.at - self.at)

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        """Waits, as a read by the host does."""
        from tests.support.pretend_cuda.counters import COUNTERS, source_line

        COUNTERS.syncs[f"{source_line()} event.synchronize"] += 1


def _patch_torch(memory: int) -> None:
    import torch

    from tests.support.pretend_cuda.counters import COUNTERS, source_line
    from tests.support.pretend_cuda.memory import MEMORY
    from tests.support.pretend_cuda.tensor import PINNED, PretendMode, indexed

    current = threading.local()

    def number(device: Any = None) -> int:
        if device is None:
            return int(getattr(current, "index", 0))
        return device if isinstance(device, int) else indexed(device).index or 0

    def set_device(device: Any) -> None:
        if not 0 <= number(device) < DEVICES:
            raise RuntimeError("CUDA error: invalid device ordinal")
        current.index = number(device)

    def synchronize(device: Any = None) -> None:
        COUNTERS.syncs[f"{source_line()} synchronize"] += 1

    properties = SimpleNamespace(name=NAME, total_memory=memory, major=8, minor=9, multi_processor_count=128)
    answers: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: DEVICES,
        "current_device": number,
        "set_device": set_device,
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (8, 9),
        "get_device_properties": lambda *_: properties,
        "empty_cache": lambda: None,
        "synchronize": synchronize,
        "mem_get_info": lambda device=None: (memory - MEMORY.now[number(device)], memory),
        "memory_allocated": lambda device=None: MEMORY.now[number(device)],
        "memory_reserved": lambda device=None: MEMORY.now[number(device)],
        "max_memory_allocated": lambda device=None: MEMORY.peak[number(device)],
        "max_memory_reserved": lambda device=None: MEMORY.peak[number(device)],
        "reset_peak_memory_stats": lambda device=None: MEMORY.reset_peak(number(device)),
        "is_bf16_supported": lambda *_, **__: True,
        "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "get_rng_state_all": lambda *_: [torch.zeros(16, dtype=torch.uint8)] * DEVICES,
        "set_rng_state_all": lambda *_: None,
        "Event": Event,
        "current_stream": lambda *_: SimpleNamespace(synchronize=synchronize, wait_stream=lambda other: None),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.version.cuda = "12.8"  # type: ignore[assignment]

    def pin_memory(self: torch.Tensor, *_: Any) -> torch.Tensor:
        if self.device.type != "cpu":
            raise RuntimeError(f"cannot pin '{self.type()}': only dense CPU tensors can be pinned")
        pinned = self.clone()
        setattr(pinned, PINNED, True)
        return pinned

    torch.Tensor.pin_memory = pin_memory  # type: ignore[method-assign,assignment]
    torch.Tensor.is_pinned = lambda self, *_: bool(getattr(self, PINNED, False))  # type: ignore[method-assign,assignment]
    # Parameters that move get a new tensor: `parameter.data = pretended` would lose the type.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _enter_thread()
    PretendMode().__enter__()


def _enter_thread() -> None:
    import torch

    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` then goes through the mode.
    # Backward in the thread that asks for it: dispatch modes belong to a thread.
    torch._C._set_multithreading_enabled(False)


def _patch_threads() -> None:
    """Threads that Python starts believe in the device too."""
    from tests.support.pretend_cuda.tensor import PretendMode

    plain = threading.Thread.run

    def run(self: threading.Thread) -> None:
        _enter_thread()
        with PretendMode():
            plain(self)

    threading.Thread.run = run  # type: ignore[method-assign]


def _patch_safetensors() -> None:
    """It asks tensors for the address of their storage, which pretended ones do not have."""
    import safetensors.torch as library

    from tests.support.pretend_cuda.tensor import PretendTensor

    for name in ("save", "save_file"):
        plain = getattr(library, name)

        def saving(tensors: Any, *rest: Any, plain: Any = plain, **named: Any) -> Any:
            near = {key: x.cpu() if isinstance(x, PretendTensor) else x for key, x in tensors.items()}
            return plain(near, *rest, **named)

        setattr(library, name, saving)
