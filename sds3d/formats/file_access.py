"""Files that a file names: found in its own folder and nowhere else, and never on a network.

Names come as URIs, percent-encoded or not.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

MAX_BYTES = 2 * 2**30
"""Bytes of one such file."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def shortened(name: str) -> str:
    """A name as a message shows it."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= 60 else f"{plain[:40]}…{plain[-12:]}"


def content_of(uri: str, folder: Path) -> bytes:
    """The bytes behind a URI in a file of `folder`.

    Raises ValueError, in words that begin with the name, for a network address, a place outside the folder, a file
    that is missing, and a broken data URI.
    """
    if uri[:5].lower() == "data:":
        return _data(uri)
    shown = shortened(uri)
    if _SCHEME.match(uri) or uri.startswith(("//", "\\\\")):
        raise ValueError(f"{shown}, which it names, is an address and not a file beside it; addresses are not opened")
    path = inside(uri, folder)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{shown}, which it names, is not a file")
        if about.st_size > MAX_BYTES:
            raise ValueError(f"{shown}, which it names, has {about.st_size:,} bytes; expected up to {MAX_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        words = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ValueError(f"{shown}, which it names, {words}") from None


def inside(name: str, folder: Path) -> Path:
    """The file of that name in a folder or below it, links followed; the name as it is or percent-decoded.

    Raises ValueError where it leads outside.
    """
    home, outside = folder.resolve(), False
    places = []
    for way in dict.fromkeys((unquote(name), name)):
        try:
            path = (home / way.replace("\\", "/")).resolve()
            there = path.exists()
        except (OSError, ValueError, RuntimeError):
            continue
        if not path.is_relative_to(home):
            outside = True
        elif there:
            return path
        else:
            places.append(path)
    if not outside and not places:
        raise ValueError(f"{shortened(name)}, which it names, is not the name of a file")
    if outside:
        raise ValueError(f"{shortened(name)}, which it names, is outside its own folder and is not read")
    return places[0]


def _data(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data URI in it is broken: it has no comma")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote(body) if "%" in body else body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a data URI in it is broken: it is not base64") from None
