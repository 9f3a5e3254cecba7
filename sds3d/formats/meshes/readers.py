"""Meshes of the formats without a scene: one door to all their readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sds3d.formats.library_errors import refused
from sds3d.formats.meshes.off import off_surfaces
from sds3d.formats.meshes.stl import stl_surfaces
from sds3d.formats.meshes.surfaces import Surfaces
from sds3d.formats.obj.reader import obj_surfaces
from sds3d.formats.ply.reader import ply_surfaces
from sds3d.formats.threemf.reader import threemf_surfaces

_BEGINNINGS = {
    ".glb": rb"glTF", ".3mf": rb"PK\x03\x04(?s:.)*(3D/|\[Content_Types\])", ".zip": rb"PK\x03\x04",
    ".ply": rb"ply[\r\n]", ".off": rb"C?N?OFF\b", ".stl": rb"solid [^\r\n]*[\r\n]+\s*facet", ".fbx": rb"Kaydara FBX",
    ".rar": rb"Rar!", ".usdc": rb"PXR-USDC", ".usda": rb"#usda", ".dae": rb"<\?xml(?s:.)*<COLLADA",
    ".blend": rb"BLENDER", ".gltf": rb"\s*\{\s*\"", ".obj": rb"(#[^\r\n]*[\r\n]|[\r\n])*(mtllib|v) \S+",
}  # fmt: skip
"""How files of several kinds begin."""
MAX_SKINS = 4096
"""Materials of one file; what has others is left grey."""
MAX_LINES = 50
"""Lines on what a file lacks, and remarks on it."""
FARTHEST = 1e30
"""Positions beyond are taken for damage, as those are that are no numbers."""
READERS: dict[str, Callable[[Path, int], Surfaces]] = {
    ".obj": obj_surfaces,
    ".ply": ply_surfaces,
    ".stl": stl_surfaces,
    ".off": off_surfaces,
    ".3mf": threemf_surfaces,
}
"""By the ending of a file."""


def surfaces_in(path: Path, most: int) -> Surfaces:
    """A file of up to `most` triangles. Raises OSError where it cannot be read, ValueError where it holds no mesh."""
    try:
        with np.errstate(all="ignore"):
            surfaces = READERS[path.suffix.lower()](path, most).checked()
            surfaces.positions = np.where(np.abs(surfaces.positions) <= FARTHEST, surfaces.positions, np.nan)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken file makes its readers fail in every way there is
        if other := another_kind(path):
            raise ValueError(other) from None
        raise refused(path, error) from None
    if not len(surfaces.faces):
        if other := another_kind(path):
            raise ValueError(other)
        only = next((f", {line}" for line in surfaces.remarks if line.startswith("only")), "")
        raise ValueError(f"{path.name} has no triangles{only}")
    if surfaces.skin_of is not None and len(surfaces.skins) > MAX_SKINS:
        surfaces.lacking.insert(0, f"it has {len(surfaces.skins):,} materials; the first {MAX_SKINS:,} are read")
        surfaces.skin_of = np.where(surfaces.skin_of < MAX_SKINS, surfaces.skin_of, -1)
        del surfaces.skins[MAX_SKINS:]
    for lines in (surfaces.lacking, surfaces.remarks):
        if len(lines) > MAX_LINES:
            lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES:,} more of that kind"]
    return surfaces


def another_kind(path: Path) -> str | None:
    """In words, that a file's content is of another kind than its ending says; None where it does not look so."""
    with path.open("rb") as file:
        head = file.read(512)
    named, words = path.suffix[1:].upper(), head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if re.match(rb"<!doctype html|<html", words):
        return f"{path.name} is a web page and no {named}: was it downloaded as a file?"
    if words.startswith(b"version https://git-lfs"):
        return f"{path.name} is a pointer of Git LFS and not the {named} itself: fetch it by git lfs pull"
    for ending, start in _BEGINNINGS.items():
        if re.match(start, head) and (named.lower(), ending) not in ((ending[1:], ending), ("3mf", ".zip")):
            ours = ending in (*READERS, ".glb", ".gltf")
            then = f"let its name end in {ending}" if ours else "save it as GLB or OBJ in the program that made it"
            return f"{path.name} is {ending[1:].upper()} and no {named} by its content: {then}"
    return None
