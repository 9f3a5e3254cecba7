"""Where a file comes from, in the formats that have hardly any room for it.

SPZ is a gzip file, which may have a comment; GIF has comments, WebP has Exif, MP4 has tags. STL and .splat have none of
these: what they come from stands in a file beside them, which knows the checksum of the file that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sds3d.atomic_files import atomic_write
from sds3d.formats.layout import Facts, facts_json
from sds3d.formats.library_errors import refuse_unlike_a_file

SIDECAR_SUFFIXES = (".stl", ".splat")
"""Endings of the formats whose origin stands beside them."""
DESCRIPTION = 0x010E
"""Exif's number for what a picture is."""
_EXTRA, _NAME, _COMMENT = 4, 8, 16
"""Flags in the head of a gzip file."""
_CONTAINERS = (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt")


def sidecar_path(path: Path) -> Path:
    """The file that says where `path` comes from."""
    return path.with_name(f"{path.name}.origin.json")


def write_with_origin(path: Path, content: bytes, facts: Facts) -> None:
    """A file and, where there are facts, the one beside it; both or neither. Raises OSError."""
    with ExitStack() as drafts:
        if facts:
            told = {"sha256": hashlib.sha256(content).hexdigest(), **json.loads(facts_json(facts))}
            text = json.dumps(told, indent=1, ensure_ascii=False)
            drafts.enter_context(atomic_write(sidecar_path(path))).write_text(text, encoding="utf-8")
        drafts.enter_context(atomic_write(path)).write_bytes(content)


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What stands beside a file; None where nothing does, or it belongs to another file."""
    try:
        refuse_unlike_a_file(sidecar_path(path))
        told = parsed(sidecar_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if told is None or told.pop("sha256", "") != hashlib.sha256(path.read_bytes()).hexdigest():
        return None
    return told


def parsed(text: str) -> dict[str, Any] | None:
    """The facts in a text; None where it is something else."""
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def gzipped(content: bytes, facts: Facts) -> bytes:
    """A gzip file (RFC 1952) with the facts as its comment; the same bytes at any time."""
    comment = facts_json(facts, plain=True).encode() + b"\0" if facts else b""
    head = struct.pack("<HBBIBB", 0x8B1F, 8, _COMMENT if facts else 0, 0, 2, 255)
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = press.compress(content) + press.flush()
    return head + comment + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def gzip_comment(content: bytes) -> str:
    """The comment of a gzip file; empty where it has none."""
    if len(content) < 10 or content[:2] != b"\x1f\x8b" or not content[3] & _COMMENT:
        return ""
    place = 10
    if content[3] & _EXTRA:
        place += 2 + int.from_bytes(content[10:12], "little")
    if content[3] & _NAME:
        place = content.find(b"\0", place) + 1
    return content[place : content.find(b"\0", place)].decode("latin-1")


def video_comment(content: bytes) -> str:
    """The comment among the tags of an MP4 file; empty where it has none."""
    for name in _CONTAINERS:
        # `meta` starts with four bytes of version and flags.
        content = _box(content[4:] if name == b"ilst" else content, name)
    return _box(content, b"data")[8:].decode("utf-8", "replace")


def _box(content: bytes, name: bytes) -> bytes:
    """What is in the first box of that name; empty where there is none."""
    place = 0
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        start = 8
        if size == 1:
            size, start = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        if size < start:
            break
        if content[place + 4 : place + 8] == name:
            return content[place + start : place + size]
        place += size
    return b""


def image_comment(path: Path) -> str:
    """The comment of a GIF, or the description of a WebP; empty where it has none. Raises OSError for no picture."""
    from PIL import Image

    with Image.open(path) as picture:
        said = picture.info.get("comment", b"") if picture.format == "GIF" else picture.getexif().get(DESCRIPTION, "")
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
