"""The images of a glTF document, decoded: every mode and depth, from inside the file or from beside it.

An image that cannot be had is said once and left out. Shapes: H W of an image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray

from sds3d.formats.file_access import content_of
from sds3d.formats.gltf.document import Gltf
from sds3d.formats.gltf.schema import Image, Texture
from sds3d.formats.meshes.images import KEPT_SIDE, decoded

MANY, MANY_SIDE = 8, 2048
"""Images of a file beyond which all are made smaller still."""
MAX_TOTAL = 32 * 4096**2
"""Texels of all images of one file."""
_KTX2 = b"\xabKTX 20\xbb\r\n\x1a\n"


class Images:
    """The images of a document."""

    def __init__(self, gltf: Gltf) -> None:
        self._gltf = gltf
        self._side = KEPT_SIDE if len(gltf.json.images) <= MANY else MANY_SIDE
        self._left = MAX_TOTAL
        self._decoded: dict[int, ndarray | None] = {}
        self._size: dict[int, tuple[int, int]] = {}
        self._tensors: dict[tuple[int, str], torch.Tensor] = {}
        self.lacking: list[str] = []
        """What cannot be had, a line each."""

    def image_of(self, texture: int, where: str) -> int | None:
        """The number of a texture's image; None, said, where no kind of it is read here."""
        entry: Texture = self._gltf.at("textures", texture, where)
        other = entry.extensions
        choices = [] if other is None else [other.webp, other.avif, other.dds]
        sources = [entry.source, *(choice.source for choice in choices if choice is not None)]
        for source in sources:
            if source is not None and self.pixels(source, f"textures[{texture}]") is not None:
                return source
        if all(source is None for source in sources):
            if other is not None and other.basisu is not None and other.basisu.source is not None:
                self.pixels(other.basisu.source, f"textures[{texture}]")
            else:
                self.say(f"textures[{texture}] names no image; what it holds is left grey")
        return None

    def size(self, image: int) -> tuple[int, int]:
        """Width and height as they are in the file; zeros where it cannot be had."""
        return self._size.get(image, (0, 0))

    def tensor(self, image: int, channels: str, where: str) -> torch.Tensor | None:
        """[C H W] 0..1 of some of the channels r, g, b, a."""
        pixels = self.pixels(image, where)
        if pixels is None:
            return None
        key = image, channels
        if key not in self._tensors:
            picked = pixels[..., ["rgba".index(channel) for channel in channels]].transpose(2, 0, 1)
            self._tensors[key] = torch.from_numpy(np.ascontiguousarray(picked, np.float32) / 255)
        return self._tensors[key]

    def pixels(self, image: int, where: str) -> ndarray | None:
        """[H W 4] eight bits; None, said, where it cannot be had."""
        if image not in self._decoded:
            entry: Image = self._gltf.at("images", image, where)
            try:
                self._decoded[image] = self._read(entry, image)
            except ValueError as error:
                self._decoded[image] = None
                self.say(f"{error}; what it holds is left grey")
        return self._decoded[image]

    def say(self, line: str) -> None:
        """One more thing that cannot be had."""
        if line not in self.lacking:
            self.lacking.append(line)

    def _read(self, entry: Image, number: int) -> ndarray:
        place = f"images[{number}]"
        if entry.bufferView is not None:
            content = self._gltf.view(entry.bufferView, place)
        elif entry.uri is not None:
            content = content_of(entry.uri, self._gltf.path.parent)
        else:
            raise ValueError(f"{place} has neither a uri nor a bufferView")
        if content.startswith(_KTX2):
            raise ValueError(f"{place} is KTX2 (KHR_texture_basisu), which is not decoded here: save it as PNG or JPEG")
        pixels, size = decoded(content, place, self._side, self._left)
        self._size[number], self._left = size, self._left - size[0] * size[1]
        return pixels
