"""Pictures as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping

from jaxtyping import UInt8
from numpy import ndarray


def png(picture: UInt8[ndarray, "H W C"] | UInt8[ndarray, "H W"], texts: Mapping[str, str] | None = None) -> bytes:
    """A picture as the bytes of a PNG file: grey, three channels, or four with the opacity.

    `texts` go along as named text chunks.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    for name, text in (texts or {}).items():
        said.add_itxt(name, text)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=said)
    return buffer.getvalue()
