"""Pictures of every kind and depth that Pillow opens, as bytes."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Hashable

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

MAX_PIXELS = 12_288**2
"""Texels of one picture: a little less than Pillow opens."""
MAX_BYTES = 512 * 2**20
"""Bytes of one picture."""
MAX_KEPT = 8 * 4096**2
"""Texels of all pictures of one file, as they are kept."""
KEPT_SIDE = 4096
"""Larger pictures are made smaller: no texture here is larger."""


class Pictures:
    """The pictures of one file, each decoded once; the more there are, the smaller the later ones are kept."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[UInt8[ndarray, "H W 4"], tuple[int, int]] | None] = {}
        self._made: dict[Hashable, UInt8[ndarray, "H W 4"]] = {}
        self._left = MAX_KEPT

    def decoded(
        self, key: Hashable, name: str, read: Callable[[], bytes]
    ) -> tuple[UInt8[ndarray, "H W 4"], tuple[int, int]]:
        """The picture of that key as `decoded` has it. Raises ValueError, which begins with `name`, OSError."""
        if key not in self._known:
            self._known[key] = None
            picture = decoded(read(), name, min(KEPT_SIDE, math.isqrt(self._left // 4)))
            self._pay(picture[0].size // 4, name)
            self._known[key] = picture
        known = self._known[key]
        if known is None:
            raise ValueError(f"{name}, which it names, cannot be had")
        return known

    def made(
        self, picture: UInt8[ndarray, "H W 4"], way: Hashable, name: str, make: Callable[[], ndarray]
    ) -> UInt8[ndarray, "H W 4"]:
        """What `make` makes of a picture, in a way that is not to be done twice. Raises ValueError."""
        key = id(picture), way
        if key not in self._made:
            self._pay(picture.size // 4, name)
            self._made[key] = make()
        return self._made[key]

    def _pay(self, texels: int, name: str) -> None:
        if texels > self._left:
            raise ValueError(f"{name} is one too many: pictures of one file may have {MAX_KEPT:,} texels")
        self._left -= texels


def decoded(
    content: bytes, name: str, side: int = KEPT_SIDE, most: int = MAX_PIXELS
) -> tuple[UInt8[ndarray, "H W 4"], tuple[int, int]]:
    """The picture, up to `side` texels long, and (width, height) before it was made smaller.

    Raises ValueError, which begins with `name`, also for one of more than `most` texels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = Image.open(io.BytesIO(content))
            size = file.size
            if size[0] * size[1] > min(most, MAX_PIXELS):
                raise Image.DecompressionBombError
            file.draft("RGB", (side, side))
            picture: Image.Image = file
            if picture.mode[:1] in "IF":
                picture = Image.fromarray(_eight_bits(np.asarray(picture)))
            if max(picture.size) > side:
                picture = picture if picture.mode in ("L", "RGB") else picture.convert("RGBA")
                picture = picture.reduce(-(-max(picture.size) // side))
            return np.array(picture.convert("RGBA")), size
    except Image.DecompressionBombError:
        raise ValueError(f"{name} has too many texels; at most {min(most, MAX_PIXELS):,} are read") from None
    except Exception:  # whatever a damaged picture does to its decoder
        raise ValueError(f"{name} is a damaged picture, or of a kind that is not read") from None


def _eight_bits(values: ndarray) -> ndarray:
    """Greys of 16 or 32 bits, or floats of 0..1, as bytes."""
    if values.dtype.kind == "f":
        share = np.nan_to_num(values).clip(0, 1)
    else:
        share = values.astype(np.int64).clip(0, 65535) / 65535
    eight: ndarray = (share * 255).round().astype(np.uint8)
    return eight
