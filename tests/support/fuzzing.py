"""Damaged files: seeded mutations of good ones, and the law that a reader keeps on all of them.

For a format of bytes: `attacks(seeds, count)` with some small good files, then `holds(read, path)` on each of what it
yields. `read` may return, or raise one of `REFUSALS` with one line that people can act on, within `seconds`.
"""

from __future__ import annotations

import json
import random
import re
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REFUSALS = (ValueError, OSError, ImportError)
"""What a reader may raise; everything else is a traceback."""
NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    -(2**63),
    10**30,
    0.5,
    1e38,
    1e308,
    -1e308,
)
VALUES: tuple[Any, ...] = (
    *(*NUMBERS, None, True, False, "", "x", "../../etc/passwd", "http://127.0.0.1/a.png", "data:,", "DATA:image/png"),
    *([], {}, [[]], [0, 0, 0, 0], {"uri": 1}, "\x00", "é", "a" * 5000, [None] * 3),
)
"""What stands in for a value of JSON."""
INTERNAL = re.compile(
    r"Traceback|object has no attribute|unexpected keyword|NoneType|list index out of range|cannot reshape|broadcast"
    r"|invalid literal|could not convert string|TypeCheckError|Beartype"
    r"|unhashable|not subscriptable|is not iterable|unpack requires|buffer is smaller|must be str, not"
)
"""Words of an interpreter or a library, and not of the product."""


def attacks(seeds: Sequence[bytes], count: int, seed: int = 0, text: bool = False) -> Iterator[bytes]:
    """`count` damaged files, the same for the same `seed`; `text` for formats of lines of words."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        content = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            content = _mutate(content, rng, text)
        yield content


def _mutate(content: bytes, rng: random.Random, text: bool) -> bytes:
    if content[:4] == b"glTF" and rng.random() < 0.7:
        return _mutate_glb(content, rng)
    if content[:1] == b"{" and rng.random() < 0.85:
        return _mutate_json(content, rng)
    if text and rng.random() < 0.6:
        return _mutate_words(content, rng)
    return _mutate_bytes(content, rng)


def _mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits, bytes and numbers are changed, stretches are cut out, doubled, filled."""
    data, size = bytearray(content), len(content)
    if not size:
        return rng.randbytes(rng.randrange(64))
    start = rng.randrange(size)
    length = min(size - start, int(2 ** (rng.random() * 9)))
    way = rng.randrange(8)
    if way == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif way == 1:
        data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20))
    elif way == 2:
        number = int(rng.choice([n for n in NUMBERS if isinstance(n, int)])) & 0xFFFFFFFF
        data[start : start + 4] = struct.pack(rng.choice("<>") + "I", number)
    elif way == 3:
        del data[start:]
    elif way == 4:
        del data[start : start + length]
    elif way == 5:
        data[start:start] = data[start : start + length] * rng.choice((1, 1, 50))
    elif way == 6:
        data[start : start + length] = rng.randbytes(length)
    else:
        data[start : start + length] = bytes([rng.choice((0, 0xFF))]) * length
    return bytes(data)


def _mutate_words(content: bytes, rng: random.Random) -> bytes:
    """A word is replaced, a line dropped, doubled or moved."""
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    way = rng.randrange(4)
    if way == 0:
        words = lines[row].split(b" ")
        words[rng.randrange(len(words))] = str(rng.choice(VALUES)).encode("utf-8", "replace")
        lines[row] = b" ".join(words)
    elif way == 1:
        del lines[row]
    elif way == 2:
        lines.insert(row, lines[row])
    else:
        lines.insert(rng.randrange(len(lines)), lines.pop(row))
    return b"\n".join(lines)


def _mutate_glb(content: bytes, rng: random.Random) -> bytes:
    """The JSON inside a GLB is changed, and its lengths put right."""
    try:
        (length,) = struct.unpack_from("<I", content, 12)
        words = _mutate_json(content[20 : 20 + length].rstrip(b" "), rng)
    except (ValueError, struct.error):
        return _mutate_bytes(content, rng)
    return make_glb(words, content[20 + length :])


def make_glb(words: bytes, rest: bytes = b"") -> bytes:
    """A GLB of these bytes of JSON and these further chunks."""
    words += b" " * (-len(words) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(words) + len(rest), len(words), 0x4E4F534A) + words + rest


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    """A value anywhere in the JSON is replaced, removed or doubled."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _mutate_bytes(content, rng)
    if rng.random() < 0.02:
        return content[:-1] + b',"extras":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    places = list(_json_slots(tree))
    if not places:
        return _mutate_bytes(content, rng)
    parent, key = rng.choice(places)
    way = rng.randrange(5)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, list):
        parent += [parent[key]] * rng.choice((1, 1, 300))
    elif way == 2:
        other, name = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[name]))
    elif way == 3 and isinstance(parent[key], int | float) and abs(parent[key]) < 2**53:
        parent[key] += rng.choice((1, -1, 4, 100))
    else:
        parent[key] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def _json_slots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a tree of JSON."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            keys = list(one) if isinstance(one, dict) else list(range(len(one)))
            yield from ((one, key) for key in keys)
            waiting += [one[key] for key in keys]


def check_reader(read: Callable[[Path], object], path: Path, seconds: float = 10.0) -> str:
    """Reads a file; returns "" or the one line of its refusal. Raises AssertionError where the law is broken."""
    started, message = time.process_time(), ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            read(path)
        except REFUSALS as error:
            message = str(error)
            assert message.strip() and "\n" not in message, f"{type(error).__name__} is not one line: {message!r}"
            assert len(message) < 400, f"a line of {len(message)} letters: {message[:120]!r}"
            assert not INTERNAL.search(message), f"words of the interpreter: {message!r}"
        except BaseException as error:
            raise AssertionError(f"a traceback of {type(error).__name__}: {str(error)[:200]}") from error
    library_warnings = [str(one.message) for one in warned if issubclass(one.category, RuntimeWarning)]
    assert not library_warnings, f"a warning of a library: {library_warnings[0]}"
    elapsed = time.process_time() - started
    assert elapsed < seconds, f"took {elapsed:.1f} s of a processor; at most {seconds} are allowed"
    return message


def run_attacks(
    read: Callable[[Path], object], seeds: Sequence[bytes], name: str, folder: Path, count: int,
    seed: int = 0, text: bool = False, seconds: float = 10.0,
) -> dict[str, int]:  # fmt: skip
    """All attacks one after another on files called `name`; how many were read and how many refused.

    The file that breaks the law is left in `folder`.
    """
    counts = {"read": 0, "refused": 0}
    for number, content in enumerate(attacks(seeds, count, seed, text)):
        path = folder / name
        path.write_bytes(content)
        try:
            counts["refused" if check_reader(read, path, seconds) else "read"] += 1
        except AssertionError as broken:
            broken_file = path.rename(folder / f"broken{number}{path.suffix}")
            raise AssertionError(f"attack {number} ({broken_file}): {broken}") from broken
    return counts
