"""What the host did to the pretended device, by source line of the program under test."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
_OWN = str(Path(__file__).parent)
_ROOTS = tuple(f"{ROOT / name}{os.sep}" for name in ("guidance", "renderers", "configs", "sds3d", "app", "tests"))


@dataclass
class Counters:
    """Counts since the last `reset`; keys are "file:line operation"."""

    syncs: Counter[str] = field(default_factory=Counter)
    """Reads of the device by the host, each of which waits for all that was launched before."""
    launches: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    """Copies to the device from pageable memory, each of which waits too."""
    pinned: Counter[str] = field(default_factory=Counter)
    """Copies to the device from pinned memory, which wait for nothing."""
    float64: Counter[str] = field(default_factory=Counter)
    """Uploads of float64, and operations in it, in which consumer GPUs are 64 times slower."""
    half_on_cpu: Counter[str] = field(default_factory=Counter)
    """Operations that the CPU lacks in half precision; computed in single."""

    def reset(self) -> None:
        for counter in vars(self).values():
            counter.clear()

    def per_step(self, steps: int) -> dict[str, float]:
        """Means over so many steps."""
        return {name: sum(counter.values()) / steps for name, counter in vars(self).items()}

    def table(self, steps: int = 1, top: int = 25) -> str:
        """The same for people, with the lines that are responsible."""
        rows = [", ".join(f"{name} {count:.1f}" for name, count in self.per_step(steps).items())]
        for name, counter in vars(self).items():
            rows += [f"  {count / steps:8.2f} {name} {line}" for line, count in counter.most_common(top)]
        return "\n".join(rows)


COUNTERS = Counters()


def source_line() -> str:
    """The innermost line of the program under test, as "file:line"."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _KNOWN.get(frame.f_code.co_filename)
        if name is None:
            name = _KNOWN[frame.f_code.co_filename] = _shortened(frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "<elsewhere>"


_KNOWN: dict[str, str] = {}


def _shortened(name: str) -> str:
    """The path from the root of the repository; empty for files of others, and for those of the device itself."""
    ours = name.startswith(_ROOTS) and not name.startswith(_OWN) and "/site-packages/" not in name
    return os.path.relpath(name, ROOT) if ours else ""
