"""Text files of numbers: their encoding, and numbers whose mistakes are named."""

from __future__ import annotations

import re
import warnings

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sds3d.formats.file_access import shortened

_NO_NUMBER = re.compile(rb"[+-]?(1\.#\w+|nan\(\w*\)|1\.\$)", re.IGNORECASE)
"""What old C libraries print where a value is not a number."""


def plain_bytes(content: bytes, name: str) -> bytes:
    """Text without its byte order mark, in UTF-8 or any encoding of single bytes.

    Raises ValueError for UTF-16 and UTF-32.
    """
    if content.startswith(b"\xef\xbb\xbf"):
        return content[3:]
    head = content[:256]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or _wide(head):
        raise ValueError(f"{name} is text in UTF-16 or UTF-32; expected UTF-8: save it as UTF-8")
    return content


def _wide(head: bytes) -> bool:
    """Whether every second or fourth byte is a letter and all others are zero."""
    for step in (2, 4):
        for place in range(step):
            letters = head[place::step]
            if len(letters) > 3 and 0 not in letters and head.count(0) > 0.9 * (len(head) - len(letters)):
                return True
    return False


def joined(content: bytes) -> bytes:
    """Lines that end in a blank and a backslash with the next ones."""
    return re.sub(rb"(?<![ \t])[ \t]+\\\r?\n", b" ", content) if b"\\" in content else content


def as_text(content: bytes) -> str:
    """Words of a file in UTF-8, or in the encoding of western Windows where it is not that."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def numbers(content: bytes, where: str) -> Float[ndarray, " N"]:
    """Numbers with blanks between them. Raises ValueError, which begins with `where`, naming the first that is none."""
    if not content.strip():
        return np.zeros(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            return np.fromstring(content, np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        return np.array([number(word, where) for word in content.split()])


def number(word: bytes, where: str) -> float:
    """One number. Raises ValueError as `numbers`."""
    try:
        if b"_" not in word:
            return float(word)
    except ValueError:
        pass
    if _NO_NUMBER.fullmatch(word):
        return float("nan")
    shown = shortened(as_text(word))
    if re.fullmatch(rb"[+-]?\d*,\d+([eE][+-]?\d+)?", word):
        raise ValueError(
            f"{where}: {shown} has a decimal comma; expected a point, as in {shown.replace(',', '.')}: "
            "export it again with points"
        )
    raise ValueError(f"{where}: expected a number, not {shown}")
