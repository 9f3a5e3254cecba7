"""Time and memory that work takes on the device where it is done."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class Stopwatch:
    """Seconds of work inside its `with` blocks. On a GPU it is the work that is timed and not its launch, by events;
    read the seconds where the host has waited for the work anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = 0.0
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def reset(self) -> None:
        self._seconds, self._events = 0.0, []

    def __enter__(self) -> Stopwatch:
        if self._device.type == "cuda":
            self._events.append((self._event(), self._event()))
            self._events[-1][0].record(torch.cuda.current_stream(self._device))
        else:
            self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self._events[-1][1].record(torch.cuda.current_stream(self._device))
        else:
            self._seconds += time.perf_counter() - self._began

    @property
    def seconds(self) -> float:
        """Since the last `reset`."""
        return self._seconds + sum(float(began.elapsed_time(ended)) for began, ended in self._events) / 1000

    @staticmethod
    def _event() -> torch.cuda.Event:
        return torch.cuda.Event(enable_timing=True)


def gpu_memory_mb(device: torch.device) -> tuple[float, float] | None:
    """(now, peak) of what tensors take on a GPU, in MB; None for another device. The caching allocator holds more."""
    if device.type != "cuda":
        return None
    return torch.cuda.memory_allocated(device) / 2**20, torch.cuda.max_memory_allocated(device) / 2**20
