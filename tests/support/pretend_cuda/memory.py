"""A rough memory model: bytes of the storages that live inside pretended tensors, and their peak."""

from __future__ import annotations

import threading
import weakref
from collections import Counter

import torch


class Memory:
    """Storages by device. What autograd saves is held by wrappers too, so that graphs count."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders: Counter[tuple[int, int]] = Counter()
        self.now: Counter[int] = Counter()
        self.peak: Counter[int] = Counter()

    def hold(self, inner: torch.Tensor, device: torch.device) -> None:
        """Counts the storage of a tensor while the tensor lives."""
        if inner.layout != torch.strided:
            return
        storage, index = inner.untyped_storage(), device.index or 0
        key, size = (index, storage.data_ptr()), storage.nbytes()
        if not key[1]:
            return
        with self._lock:
            self._holders[key] += 1
            if self._holders[key] == 1:
                self.now[index] += size
                self.peak[index] = max(self.peak[index], self.now[index])
        weakref.finalize(inner, self._drop, key, size).atexit = False

    def reset_peak(self, index: int) -> None:
        self.peak[index] = self.now[index]

    def _drop(self, key: tuple[int, int], size: int) -> None:
        with self._lock:
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self.now[key[0]] -= size


MEMORY = Memory()
