"""PLY files as tables: every element's columns by name, of text and of bytes in either order.

What a header promises is held against the size of the file before anything is made for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy import ndarray

from sds3d.formats.file_access import shortened
from sds3d.formats.meshes.text_numbers import as_text, number, numbers

MAX_HEADER = 2 * 2**20
MAX_PROPERTIES = 1000
_TYPES = {"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
          "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "long": "i8", "int64": "i8",
          "ulong": "u8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
          "float16": "f2", "half": "f2"}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class Lists:
    """A column of lists: rows of the same length, or of their own."""

    values: ndarray
    """All of them after one another."""
    lengths: ndarray


@dataclass
class _Property:
    name: str
    kind: str
    count: str = ""
    """The type of its length, for lists."""


@dataclass
class _Element:
    name: str
    rows: int
    properties: list[_Property] = field(default_factory=list)


@dataclass
class Table:
    """One element."""

    rows: int
    columns: dict[str, ndarray] = field(default_factory=dict)
    """By name in small letters."""
    lists: dict[str, Lists] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """NumPy's names of the types in the file."""


@dataclass
class Ply:
    """A whole file."""

    elements: dict[str, Table] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)


def read_ply(path: Path) -> Ply:
    """All tables of a file. Raises OSError, ValueError."""
    content = path.read_bytes()
    order, elements, comments, start = _header(content, path.name)
    ply = Ply(comments=comments)
    if order:
        at = start
        for element in elements:
            table, at = _binary(content, at, element, order)
            ply.elements.setdefault(element.name, table)
        return ply
    _enough_text(len(content) - start, elements)
    values = _text(content[start:])
    place = 0
    for element in elements:
        table, place = _from_text(values, place, element)
        ply.elements.setdefault(element.name, table)
    return ply


def header_of(path: Path) -> str:
    """The lines of a PLY file before its numbers; "" where it is none."""
    with path.open("rb") as file:
        head = file.read(MAX_HEADER)
    return head.partition(b"end_header")[0].decode("utf-8", "replace") if head.startswith(b"ply") else ""


def _header(content: bytes, name: str) -> tuple[str, list[_Element], list[str], int]:
    """(byte order, "" for text; elements; comments; where the numbers start)."""
    head = content[:MAX_HEADER]
    if not re.match(rb"ply[ \t]*[\r\n]", head):
        raise ValueError("it does not begin with the word ply, as PLY files do")
    end = re.search(rb"[\r\n][ \t]*end_header[ \t]*(\r\n|\n|\r)", head)
    if end is None:
        raise ValueError(f"it has no end_header in its first {MAX_HEADER // 2**20} MB")
    start = end.end()
    # A single \r ends the header of a file whose lines all end so; its next byte may look like a \n.
    if end.group(1) == b"\r\n" and b"\n" not in head[: end.start(1)]:
        start -= 1
    order, elements, comments = None, list[_Element](), list[str]()
    for line in as_text(head[: end.start()]).splitlines()[1:]:
        words = line.split()
        if words[:1] in (["comment"], ["obj_info"]):
            comments.append(line.strip().partition(" ")[2].strip())
        elif words[:1] == ["format"]:
            order = _ORDERS.get(words[1]) if len(words) > 1 else None
            if order is None:
                raise ValueError(f"its header names the format {shortened(' '.join(words[1:]))}; expected one of "
                                 f"{', '.join(_ORDERS)}")  # fmt: skip
        elif words[:1] == ["element"]:
            if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 12:
                raise ValueError(f"its header names no element with a count in the line {shortened(line.strip())}")
            elements.append(_Element(words[1], int(words[2])))
        elif words[:1] == ["property"]:
            if not elements:
                raise ValueError("its header has a property before any element")
            elements[-1].properties.append(_property(words, line))
            if len(elements[-1].properties) > MAX_PROPERTIES:
                raise ValueError(f"its header has more than {MAX_PROPERTIES} properties of one element")
        elif words:
            raise ValueError(f"its header has a line that is not known: {shortened(line.strip())}")
    if order is None:
        raise ValueError("its header names no format")
    return order, elements, comments, start


def _property(words: list[str], line: str) -> _Property:
    if len(words) == 5 and words[1] == "list" and words[2] in _TYPES and words[3] in _TYPES:
        if _TYPES[words[2]][0] == "f":
            raise ValueError(f"its header counts lists by a {words[2]}; expected a whole number")
        return _Property(words[4].lower(), _TYPES[words[3]], _TYPES[words[2]])
    if len(words) == 3 and words[1] in _TYPES:
        return _Property(words[2].lower(), _TYPES[words[1]])
    raise ValueError(f"its header has a property of a type that is not known: {shortened(line.strip())}")


def _least(element: _Element, text: bool) -> int:
    """Bytes that a row takes at least."""
    if text:
        return 2 * len(element.properties)
    return sum(np.dtype(one.count or one.kind).itemsize for one in element.properties)


def _enough(element: _Element, bytes_left: int, text: bool) -> None:
    wanted = element.rows * _least(element, text)
    # The last number of a text needs no blank behind it.
    if wanted > bytes_left + int(text):
        raise ValueError(f"it is cut short: {element.rows:,} rows of element {shortened(element.name)} take at least "
                         f"{wanted:,} bytes, and {bytes_left:,} are left")  # fmt: skip


def _enough_text(size: int, elements: list[_Element]) -> None:
    for element in elements:
        _enough(element, size, True)


def _binary(content: bytes, start: int, element: _Element, order: str) -> tuple[Table, int]:
    _enough(element, len(content) - start, False)
    table = Table(element.rows, kinds={one.name: one.kind for one in element.properties})
    properties = element.properties
    if not properties or not element.rows:
        for one in properties:
            _put(table, one, np.zeros(0, one.kind), np.zeros(0, np.int64))
        return table, start
    lengths = _first_lengths(content, start, element, order)
    dtype = np.dtype([(str(i), order + one.kind) if not one.count else
                      (str(i), [("n", order + one.count), ("v", order + one.kind, (lengths[i],))])
                      for i, one in enumerate(properties)])  # fmt: skip
    if element.rows * dtype.itemsize <= len(content) - start:
        rows = np.frombuffer(content, dtype, element.rows, start)
        if all((rows[str(i)]["n"] == lengths[i]).all() for i, one in enumerate(properties) if one.count):
            for i, one in enumerate(properties):
                if one.count:
                    _put(table, one, rows[str(i)]["v"].reshape(-1), np.full(element.rows, lengths[i]))
                else:
                    _put(table, one, rows[str(i)], None)
            return table, start + element.rows * dtype.itemsize
    return _walked(content, start, element, order, table)


def _first_lengths(content: bytes, start: int, element: _Element, order: str) -> list[int]:
    """The lengths of the first row's lists."""
    lengths, at = [], start
    for one in element.properties:
        length = 1
        if one.count:
            length = _length(content, at, order + one.count)
            at += np.dtype(one.count).itemsize
        at += length * np.dtype(one.kind).itemsize
        if at > len(content):
            raise ValueError(f"it is cut short in element {shortened(element.name)}")
        lengths.append(length)
    return lengths


def _length(content: bytes, at: int, kind: str) -> int:
    if at + np.dtype(kind).itemsize > len(content):
        raise ValueError("it is cut short in a list")
    length = int(np.frombuffer(content, kind, 1, at)[0])
    if length < 0:
        raise ValueError(f"a list in it has the length {length}")
    return length


def _walked(content: bytes, start: int, element: _Element, order: str, table: Table) -> tuple[Table, int]:
    """Rows of different lengths, one by one."""
    parts: list[list[bytes]] = [[] for _ in element.properties]
    lengths: list[list[int]] = [[] for _ in element.properties]
    endian = "big" if order == ">" else "little"
    about = [(np.dtype(one.count).itemsize if one.count else 0, one.count[:1] == "i", np.dtype(one.kind).itemsize)
             for one in element.properties]  # fmt: skip
    at, end = start, len(content)
    for row in range(element.rows):
        for i, (head, signed, width) in enumerate(about):
            length = 1
            if head:
                length = int.from_bytes(content[at : at + head], endian, signed=signed)  # type: ignore[arg-type]
                at += head
                lengths[i].append(length)
            stop = at + length * width
            if length < 0 or stop > end:
                raise ValueError(f"it is cut short, or damaged, in row {row:,} of element {shortened(element.name)}")
            parts[i].append(content[at:stop])
            at = stop
    for i, one in enumerate(element.properties):
        values = np.frombuffer(b"".join(parts[i]), order + one.kind)
        _put(table, one, values, np.array(lengths[i], np.int64) if one.count else None)
    return table, at


def _put(table: Table, one: _Property, values: ndarray, lengths: ndarray | None) -> None:
    if one.name in table.columns or one.name in table.lists:
        return
    native = values.astype(values.dtype.newbyteorder("="))
    if one.count:
        assert lengths is not None
        table.lists[one.name] = Lists(native, lengths)
    else:
        table.columns[one.name] = native


def _text(content: bytes) -> ndarray:
    """All numbers of a text, line by line where one is no number, to name it."""
    if b"\0" in content[:4096]:
        raise ValueError("its header says ascii, but bytes follow that are no text")
    try:
        return numbers(content, "")
    except ValueError:
        for row, line in enumerate(content.splitlines(), 1):
            for word in line.split():
                number(word, f"line {row} after the header")
        raise


def _from_text(values: ndarray, place: int, element: _Element) -> tuple[Table, int]:
    table = Table(element.rows, kinds={one.name: one.kind for one in element.properties})
    properties, cut = element.properties, ValueError(f"it is cut short in element {shortened(element.name)}")
    if not any(one.count for one in properties):
        width = len(properties)
        rows = values[place : place + element.rows * width]
        if len(rows) < element.rows * width:
            raise cut
        for i, one in enumerate(properties):
            _put(table, one, rows[i::width] if width else rows, None)
        return table, place + element.rows * width
    parts: list[list[ndarray]] = [[] for _ in properties]
    lengths: list[list[int]] = [[] for _ in properties]
    for row in range(element.rows):
        for i, one in enumerate(properties):
            length = 1
            if one.count:
                length = int(values[place]) if place < len(values) and 0 <= values[place] < 2**31 else -1
                place += 1
                lengths[i].append(length)
            if length < 0 or place + length > len(values):
                raise (
                    cut
                    if place >= len(values)
                    else ValueError(f"it is cut short, or damaged, in row {row:,} of element {shortened(element.name)}")
                )
            parts[i].append(values[place : place + length])
            place += length
    for i, one in enumerate(properties):
        joined = np.concatenate(parts[i]) if parts[i] else np.zeros(0)
        _put(table, one, joined, np.array(lengths[i], np.int64) if one.count else None)
    return table, place
