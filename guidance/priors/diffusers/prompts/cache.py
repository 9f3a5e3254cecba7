"""Texts that were read before, on the disk: the next run of a prompt needs no text encoder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from guidance.priors.diffusers.prompts.encoding import PromptEmbeds


@dataclass(frozen=True)
class PromptCache:
    """A folder of embeddings, each named by a digest of the model and the text. What can not be written is let be."""

    folder: Path
    model: str
    """All that decides what a text is read as."""

    def get(self, text: str) -> PromptEmbeds | None:
        try:
            tensors = load_file(self._file(text))
            return PromptEmbeds(tensors["text_embeds"], tensors.get("pooled_embeds"), tensors.get("attention_mask"))
        except (OSError, SafetensorError, KeyError):
            return None

    def put(self, text: str, embeds: PromptEmbeds) -> None:
        items = zip(PromptEmbeds._fields, embeds, strict=True)
        tensors = {name: value.cpu().contiguous() for name, value in items if value is not None}
        file = self._file(text)
        partial = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial)
            partial.replace(file)
        except (OSError, SafetensorError):
            partial.unlink(missing_ok=True)

    def _file(self, text: str) -> Path:
        digest = hashlib.sha256(f"{self.model}\0{text}".encode()).hexdigest()
        return self.folder / f"{digest}.safetensors"


def default_folder() -> Path:
    """SDS3D_CACHE, or `sds3d` among the user's caches."""
    if override := os.environ.get("SDS3D_CACHE"):
        return Path(override) / "texts"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sds3d" / "texts"


def cache_key(folder: Path, adapters: tuple[str, ...], precision: str) -> str:
    """What decides how a model reads a text: its text encoders' files, what is on top, and the precision."""
    parts = sorted(path for path in folder.iterdir() if path.name.startswith(("text_encoder", "tokenizer")))
    files = [path for part in parts for path in sorted(part.rglob("*"))]
    files += [Path(name) for name in adapters if name]
    entries = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]
    index = (folder / "model_index.json").read_text(encoding="utf-8")
    return hashlib.sha256(repr((entries, precision, index, adapters)).encode()).hexdigest()
