"""The folder of a run: what it was asked, how it went, where it can be taken up again."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from configs import serialization
from configs.run import RunConfig
from sds3d.atomic_files import write_bytes
from sds3d.formats.png import png

KEEP_LAST = 2
"""Checkpoints that are kept."""
MAX_ENLARGED_HEIGHT = 128
"""Height up to which the pictures of a preview are enlarged."""


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder. Everything is written whole or not at all."""

    folder: Path
    trust: bool = False
    """Whether modules that its run.yaml names are imported."""

    @staticmethod
    def new(folder: Path, config: RunConfig) -> RunDirectory:
        """A folder for a new run.

        Raises:
            FileExistsError: a run or anything else is there already.
            OSError: the folder can not be written.
        """
        if folder.exists() and (not folder.is_dir() or any(not _is_draft(path) for path in folder.iterdir())):
            what = "a run" if (folder / "run.yaml").exists() else "something else"
            more = f"; go on with it by: sds3d resume {folder}" if what == "a run" else ""
            raise FileExistsError(f"{folder} already holds {what}{more}; give another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"the folder {folder} can not be made ({error.strerror}); give another --out") from None
        record = RunDirectory(folder)
        record.write_config(config)
        return record

    @staticmethod
    def open(folder: Path, trust: bool = False) -> RunDirectory:
        """The folder of an earlier run. Raises FileNotFoundError."""
        if not (folder / "run.yaml").is_file():
            raise FileNotFoundError(f"{folder} is not the folder of a run: it has no run.yaml")
        return RunDirectory(folder, trust)

    def write_config(self, config: RunConfig) -> None:
        """Writes down what is asked of the run."""
        write_bytes(self.folder / "run.yaml", serialization.to_yaml(config).encode())

    def config(self) -> RunConfig:
        """What was asked. Raises ValueError if the file was changed into something else."""
        return serialization.load_config(self.folder / "run.yaml", self.trust)

    def log(self, row: dict[str, float | int | str]) -> None:
        """Adds a line to metrics.jsonl; one that cannot be written is left out, for a log never ends a run."""
        with suppress(OSError), (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def truncate_metrics(self, step: int) -> None:
        """Drops what metrics.jsonl says of later steps, which are done again, and lines that cannot be read."""
        file = self.folder / "metrics.jsonl"
        with suppress(OSError):
            if file.exists():
                rows = file.read_bytes().splitlines(keepends=True)
                write_bytes(file, b"".join(row for row in rows if _step_of(row) <= step))

    def preview(self, step: int, rgb: Tensor) -> Path:
        """Pictures [B, H, W, 3] of a step, side by side; small ones twice their size."""
        times = 2 if rgb.shape[1] <= MAX_ENLARGED_HEIGHT else 1
        big = rgb.detach().clamp(0, 1).cpu().repeat_interleave(times, 1).repeat_interleave(times, 2)
        sheet = torch.cat(list(big), 1)
        file = self.folder / "previews" / f"step-{step:06d}.png"
        write_bytes(file, png((sheet * 255).round().to(torch.uint8).numpy()))
        return file

    def checkpoint(self, step: int, state: dict[str, Tensor]) -> None:
        """Saves the state of a run; only after it is on the disk do older ones than the last few go, and those of
        later steps, which were damaged or the run would have gone on from there.
        """
        content = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
        file = self._checkpoints / f"step-{step:07d}.safetensors"
        write_bytes(file, content)
        about = {"step": step, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        write_bytes(file.with_suffix(".json"), json.dumps(about).encode())
        saved = self._saved()
        place = saved.index(file)
        for old in saved[:place] + saved[place + KEEP_LAST :]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)

    def latest(self) -> tuple[dict[str, Tensor], list[str]]:
        """The newest state that is whole, and a remark for each newer one that is not.

        Raises:
            FileNotFoundError: no checkpoint was written.
            ValueError: none of them is whole.
        """
        saved = self._saved()
        if not saved:
            raise FileNotFoundError(
                f"{self.folder} has no checkpoint yet; begin it anew with: sds3d resume {self.folder}"
            )
        remarks: list[str] = []
        for file in saved:
            content = _whole(file)
            with suppress(SafetensorError):
                if content is not None:
                    return load(content), remarks
            remarks.append(f"{file.name} is damaged")
        raise ValueError(f"no checkpoint in {self._checkpoints} is whole: {', '.join(remarks)}")

    def checkpoints(self) -> dict[str, str]:
        """State of every checkpoint by its name, the newest first: whole, or damaged."""
        return {file.name: "damaged" if _whole(file) is None else "whole" for file in self._saved()}

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return bool(self._saved())

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _saved(self) -> list[Path]:
        """Checkpoints, the newest first."""
        return sorted(self._checkpoints.glob("step-*.safetensors"), reverse=True)


def _whole(file: Path) -> bytes | None:
    """The bytes of a checkpoint, None where they are not those that were written."""
    try:
        content = file.read_bytes()
        about = json.loads(file.with_suffix(".json").read_text())
        return content if about["sha256"] == hashlib.sha256(content).hexdigest() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_draft(path: Path) -> bool:
    """Whether a file is one of `atomic.atomic_write` that a killed process left behind."""
    return path.name.startswith(".run-") and path.suffix == ".yaml"


def _step_of(row: bytes) -> float:
    """The step that a line of metrics.jsonl is about; infinity for a line that was cut short."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
