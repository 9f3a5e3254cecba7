"""Wavefront OBJ files as programs write them.

Lines are gathered in blocks and turned into numbers by NumPy, corners by how many a face has and what they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from sds3d.formats.file_access import shortened
from sds3d.formats.meshes.named_files import NamedFiles
from sds3d.formats.meshes.polygons import triangulated
from sds3d.formats.meshes.surfaces import Surfaces
from sds3d.formats.meshes.text_numbers import as_text, joined, numbers, plain_bytes
from sds3d.formats.obj.materials import Library
from sds3d.formats.obj.smoothing import smoothed

BLOCK = 4 * 2**20
MAX_LINE = 2**20
MAX_CORNERS = 20_000
"""Corners of one polygon."""
MAX_LIBRARIES = 1000
_FULL = 3
"""In place of the number of slashes of a corner: the corners of the face are read one by one."""
_CURVES = frozenset((b"curv", b"curv2", b"surf", b"parm", b"trim", b"hole", b"cstype"))


@dataclass
class _Rows:
    """Faces of so many corners, of one way to name them."""

    lines: list[bytes] = field(default_factory=list)
    face: list[int] = field(default_factory=list)
    """Their numbers in the file."""
    where: list[int] = field(default_factory=list)


@dataclass
class _Gathered:
    """What has been read."""

    name: str
    tables: dict[bytes, list[ndarray]] = field(default_factory=lambda: {b"v": [], b"vt": [], b"vn": []})
    counts: dict[bytes, int] = field(default_factory=lambda: {b"v": 0, b"vt": 0, b"vn": 0})
    colors: list[ndarray] = field(default_factory=list)
    painted: list[tuple[int, bytes]] = field(default_factory=list)
    """ZBrush's colours."""
    polygons: list[tuple[ndarray, ndarray]] = field(default_factory=list)
    """(corners [R K 3], face [R])."""
    about: list[ndarray] = field(default_factory=list)
    """[. 2] material and smoothing group of each face."""
    faces: int = 0
    triangles: int = 0
    strokes: int = 0
    libraries: list[str] = field(default_factory=list)
    materials: dict[str, int] = field(default_factory=dict)
    material: int = -1
    smooth: int = -1
    """Smoothing group; 0 none, -1 nothing said."""
    curves: bool = False


def obj_surfaces(path: Path, most: int) -> Surfaces:
    """An OBJ file of up to `most` triangles, and its materials. Raises ValueError, OSError."""
    content = joined(plain_bytes(path.read_bytes(), path.name))
    read = _Gathered(path.name)
    for first, lines in _blocks(content):
        _block(read, lines, first, most)
    del content
    surfaces = _joined(read)
    library = _library(read, path)
    _skins(read, library, surfaces)
    surfaces.lacking += library.lacking
    surfaces.remarks += library.remarks
    if read.curves:
        surfaces.remarks.append("its curved surfaces were left out; only faces are read")
    return surfaces


def _blocks(content: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines), some megabytes at a time."""
    start, number = 0, 1
    while start < len(content):
        end = content.find(b"\n", min(start + BLOCK, len(content)))
        end = len(content) if end < 0 else end + 1
        lines = content[start:end].splitlines()
        yield number, lines
        start, number = end, number + len(lines)


def _block(read: _Gathered, lines: list[bytes], first: int, most: int) -> None:
    rows: dict[bytes, list[tuple[int, bytes]]] = {b"v": [], b"vt": [], b"vn": []}
    groups: dict[tuple[int, int], _Rows] = {}
    about: list[tuple[int, int, int, int, int]] = []
    vertex, place, normal = rows[b"v"], rows[b"vt"], rows[b"vn"]
    start = dict(read.counts)
    began = read.faces
    for number, line in enumerate(lines, first):
        if len(line) > MAX_LINE:
            raise ValueError(f"line {number} has {len(line):,} letters; at most {MAX_LINE:,} are read")
        word, _, rest = line.partition(b" ")
        if word not in rows and word != b"f":
            word, *more = line.split(None, 1) or [b""]
            rest = more[0] if more else b""
        if b"#" in rest:
            rest = rest.partition(b"#")[0] if word in rows or word == b"f" else rest
        if word == b"v":
            vertex.append((number, rest))
        elif word == b"vt":
            place.append((number, rest))
        elif word == b"vn":
            normal.append((number, rest))
        elif word == b"f" or word == b"fo":
            _face(read, groups, rest, number)
            counts = start[b"v"] + len(vertex), start[b"vt"] + len(place), start[b"vn"] + len(normal)
            about.append((*counts, read.material, read.smooth))
            if read.triangles > most:
                raise ValueError(f"{read.name} has more than {most:,} faces, the most that are read: simplify it first")
        else:
            _other(read, word, rest, line)
    for word, entries in rows.items():
        _table(read, word, entries)
    there = np.array(about, np.int64).reshape(-1, 5)
    read.about.append(there[:, 3:])
    for (corners, slashes), group in groups.items():
        read.polygons.append(_corners(group, corners, slashes, there[:, :3], began))


def _face(read: _Gathered, groups: dict[tuple[int, int], _Rows], rest: bytes, number: int) -> None:
    """Sorts a face by its kind; it is counted also where it has too few corners."""
    corners = rest.split()
    slashes = corners[0].count(b"/") if corners else 0
    if rest.count(b"/") and (slashes > 2 or any(one.count(b"/") != slashes or one[-1:] == b"/" for one in corners)):
        slashes = _FULL
    if len(corners) > MAX_CORNERS:
        raise ValueError(f"line {number} has a face of {len(corners):,} corners; at most {MAX_CORNERS:,} are read")
    group = groups.setdefault((len(corners), slashes), _Rows())
    group.lines.append(rest)
    group.face.append(read.faces)
    group.where.append(number)
    read.faces += 1
    read.triangles += max(len(corners) - 2, 0)


def _other(read: _Gathered, word: bytes, rest: bytes, line: bytes) -> None:
    """Statements that are no rows of numbers."""
    word = word.lower()
    if word == b"usemtl":
        name = as_text(rest.strip())
        read.material = read.materials.setdefault(name, len(read.materials))
    elif word == b"mtllib":
        if rest.strip():
            read.libraries.append(as_text(rest.strip()))
    elif word == b"s":
        first = rest.split()[:1]
        read.smooth = int(first[0]) if first and first[0].isdigit() and len(first[0]) < 10 else 0
    elif word in (b"l", b"p"):
        read.strokes += 1
    elif word == b"#mrgb":
        read.painted.append((read.counts[b"v"], rest.strip()))
    elif word in _CURVES:
        read.curves = True


def _table(read: _Gathered, word: bytes, entries: list[tuple[int, bytes]]) -> None:
    """Rows of numbers of one kind, in their order, whatever their widths."""
    if not entries:
        return
    widths = np.array([len(rest.split()) for _, rest in entries])
    least = 1 if word == b"vt" else 3
    if widths.min() < least:
        number = entries[int(widths.argmin())][0]
        raise ValueError(f"line {number}: {word.decode()} has {widths.min()} numbers; expected at least {least}")
    values = np.zeros((len(entries), 3))
    colors = np.full((len(entries), 3), np.nan)
    for width in np.unique(widths):
        mine = np.flatnonzero(widths == width)
        own = _numbers([entries[i] for i in mine]).reshape(len(mine), width)
        values[mine, : min(width, 3)] = own[:, :3]
        if word == b"v" and width in (6, 7):
            colors[mine] = own[:, 3:6]
    if word == b"v":
        read.colors.append(colors)
    read.tables[word].append(values)
    read.counts[word] += len(entries)


def _numbers(entries: list[tuple[int, bytes]]) -> ndarray:
    try:
        return numbers(b" ".join(rest for _, rest in entries), "")
    except ValueError:
        for number, rest in entries:
            numbers(rest, f"line {number}")
        raise


def _corners(
    group: _Rows, corners: int, slashes: int, counts: Int[ndarray, "F 3"], began: int
) -> tuple[Int[ndarray, "R K 3"], Int[ndarray, " R"]]:
    """Indices from 0 of each corner's position, texture coordinate and normal; -1 where it has none."""
    face = np.array(group.face)
    named = np.zeros((len(face), corners, 3), np.int64)
    if slashes == _FULL:
        for row, (line, number) in enumerate(zip(group.lines, group.where, strict=True)):
            for place, corner in enumerate(line.split()):
                words = b" ".join(part or b"0" for part in corner.split(b"/")[:3])
                own = numbers(words, f"line {number}")
                named[row, place, : len(own)] = _whole(own, number)
    elif corners:
        plain = [line.replace(b"//", b"/0/").replace(b"/", b" ") for line in group.lines]
        own = _numbers(list(zip(group.where, plain, strict=True)))
        named[..., : slashes + 1] = _whole(own, group.where[0]).reshape(len(face), corners, slashes + 1)
    if corners and (named[..., 0] == 0).any():
        number = group.where[int(np.argmax((named[..., 0] == 0).any(1)))]
        raise ValueError(f"line {number}: a face names vertex 0; expected numbers from 1, or from -1 downward")
    relative = counts[face - began][:, None, :] + named
    below = (named < 0) & (relative < 0)
    if below[..., 0].any():
        number = group.where[int(np.argmax(below[..., 0].any(1)))]
        raise ValueError(
            f"line {number}: a face names vertex {int(named[..., 0].min())}, but there are fewer before it"
        )
    return np.where(named > 0, named - 1, np.where(named < 0, np.maximum(relative, -1), -1)), face


def _whole(values: ndarray, number: int) -> Int[ndarray, " N"]:
    with np.errstate(all="ignore"):
        if not (np.abs(values) < 2**40).all() or (values != np.floor(values)).any():
            raise ValueError(f"line {number} or one behind it: a face names a corner by what is no whole number")
        return values.astype(np.int64)


def _joined(read: _Gathered) -> Surfaces:
    """Tables and triangles of the whole file."""
    tables = {word: np.concatenate(rows) if rows else np.zeros((0, 3)) for word, rows in read.tables.items()}
    triangles, face, quads = triangulated(read.polygons, tables[b"v"], read.faces)
    about = np.concatenate(read.about)[face] if read.about else np.zeros((0, 2), np.int64)
    found_here = Surfaces(tables[b"v"], triangles[..., 0], skin_of=about[:, 0], quads=quads)
    high = int(found_here.faces.max(initial=-1))
    if high >= len(found_here.positions):
        raise ValueError(f"a face names vertex {high + 1}, but there are {len(found_here.positions)}")
    places, normals = (
        np.where(triangles[..., column] < len(tables[word]), triangles[..., column], -1)
        for column, word in ((1, b"vt"), (2, b"vn"))
    )
    if lost := int((places != triangles[..., 1]).any(1).sum()):
        found_here.remarks.append(f"{lost} faces name texture coordinates that are not there")
    # A triangle has texture coordinates at all of its corners or at none.
    places[(places < 0).any(1)] = -1
    if (places >= 0).any():
        found_here.uv, found_here.uv_of = tables[b"vt"][:, :2], places
    if (normals >= 0).any():
        found_here.normals, found_here.normal_of = tables[b"vn"], normals
    elif (about[:, 1] >= 0).any():
        found_here.normals, found_here.normal_of = smoothed(found_here.positions, found_here.faces, about[:, 1])
    _colored(read, found_here)
    if not len(found_here.faces) and (read.strokes or len(found_here.positions)):
        found_here.remarks.append("only points or lines")
    return found_here


def _colored(read: _Gathered, surfaces: Surfaces) -> None:
    """Colours at the points: three more numbers of a vertex, 0..1 or 0..255, or ZBrush's comments."""
    colors = np.concatenate(read.colors) if read.colors else np.zeros((0, 3))
    if read.painted:
        painted = b"".join(line for _, line in read.painted)
        painted = re.sub(rb"[^0-9A-Fa-f]", b"", painted)[: 8 * len(colors)]
        eight = np.frombuffer(bytes.fromhex(painted[: len(painted) // 8 * 8].decode()), np.uint8).reshape(-1, 4)
        colors[: len(eight)] = eight[:, 1:] / 255
    there = np.asarray(np.isfinite(colors).all(1))
    if not there.any():
        return
    if colors[there].max() > 1.001:
        colors = colors / 255
    surfaces.colors = np.where(there[:, None], colors, 0).clip(0, 1)
    corners = np.where(there[surfaces.faces].all(1)[:, None], surfaces.faces, -1)
    surfaces.color_of = corners


def _library(read: _Gathered, path: Path) -> Library:
    """The materials of all files that are named; of the one beside that has the mesh's name where none is."""
    files = NamedFiles(path.parent)
    library = Library(files)
    names = list(dict.fromkeys(name for line in read.libraries for name in _library_names(line, files)))
    if len(names) > MAX_LIBRARIES:
        library.lack(f"it names {len(names):,} libraries of materials; the first {MAX_LIBRARIES:,} are read")
        del names[MAX_LIBRARIES:]
    there = [(name, file) for name in names if (file := files.find(name)) is not None]
    for name, file in there:
        if files.elsewhere(name, file):
            library.say(f"{shortened(name)}, which it names, was found as {file.name}")
        library.read(file)
    near = files.find(f"{path.stem}.mtl")
    if read.materials and not there and near is not None:
        library.say(f"{near.name}, which it does not name, was taken for its materials")
        library.read(near)
    else:
        for name in names:
            if files.find(name) is None:
                library.lack(f"{shortened(name)}, which it names, is not there; what it holds is left grey")
    return library


def _library_names(rest: str, files: NamedFiles) -> list[str]:
    """The names on an mtllib line: quoted, one with blanks, or several."""
    if re.fullmatch(r"""("[^"]+"|'[^']+')(\s+("[^"]+"|'[^']+'))*""", rest):
        return [match.group()[1:-1] for match in re.finditer(r""""[^"]+"|'[^']+'""", rest)]
    words = [(match.group(), match.start(), match.end()) for match in re.finditer(r"\S+", rest)]
    if len(words) == 1 or files.find(rest) is not None:
        return [rest]
    by_ending, start = list[str](), 0
    for word, _, end in words:
        if word.lower().endswith(".mtl"):
            by_ending.append(rest[start:end].strip())
            start = end
    by_ending += rest[start:].split()
    plain = [word.strip("\"'") for word, *_ in words]

    def there(way: list[str]) -> float:
        first = way[:MAX_LIBRARIES]
        return sum(files.find(name) is not None for name in first) / len(first)

    return max(by_ending, plain, key=there)


def _skins(read: _Gathered, library: Library, surfaces: Surfaces) -> None:
    """The materials that the faces name."""
    assert surfaces.skin_of is not None
    lookup, names = np.full(len(read.materials) + 1, -1), list(read.materials)
    for number in np.unique(surfaces.skin_of[surfaces.skin_of >= 0]).tolist():
        skin = library.named(names[number])
        if skin is not None:
            lookup[number] = len(surfaces.skins)
            surfaces.skins.append(skin)
        elif library:
            shown = shortened(names[number])
            library.lack(f"material {shown}, which it names, is in none of its libraries; it is left grey")
    surfaces.skin_of = lookup[surfaces.skin_of]
