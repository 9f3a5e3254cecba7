"""Compressed numbers of glTF files: Draco and meshopt, by the libraries of the extra `compressed`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray

from sds3d.formats.gltf.schema import Packed

INSTALL = "pip install 'sds3d[compressed]'"


def meshopt(packed: Packed, content: bytes, where: str) -> bytes:
    """The bytes of a buffer view of EXT_meshopt_compression. Raises ValueError."""
    try:
        import meshoptimizer
    except ImportError:
        raise _lacking(where, "EXT_meshopt_compression", "meshoptimizer") from None
    count, stride = packed.count, packed.byteStride
    try:
        if packed.mode == "ATTRIBUTES" and stride % 4 == 0:
            rows = meshoptimizer.decode_vertex_buffer(count, stride, content, dtype=np.dtype(f"V{stride}"))
            flat = np.frombuffer(rows.tobytes(), np.uint8)
            if packed.filter != "NONE":
                ways = {"OCTAHEDRAL": "oct", "QUATERNION": "quat", "EXPONENTIAL": "exp"}
                way = getattr(meshoptimizer, f"decode_filter_{ways[packed.filter]}")
                flat = way(flat.copy(), count, stride)
            return bytes(np.asarray(flat).tobytes())
        if packed.mode in ("TRIANGLES", "INDICES") and stride in (2, 4):
            decode = (
                meshoptimizer.decode_index_buffer if packed.mode == "TRIANGLES" else meshoptimizer.decode_index_sequence
            )
            return bytes(np.asarray(decode(count, 4, content)).astype(f"<u{stride}").tobytes())
    except Exception:  # whatever a damaged stream does to the decoder
        raise ValueError(f"{where} cannot be unpacked: its EXT_meshopt_compression is damaged") from None
    raise ValueError(f"{where} is not valid EXT_meshopt_compression: mode {packed.mode[:20]!r}, stride {stride}")


def draco(content: bytes, where: str) -> tuple[ndarray, dict[int, ndarray]]:
    """Triangles [F 3], and the attributes [V C] by their ids, of a Draco stream. Raises ValueError."""
    try:
        import DracoPy
    except ImportError:
        raise _lacking(where, "KHR_draco_mesh_compression", "DracoPy") from None
    try:
        mesh: Any = DracoPy.decode(content)
        faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        return faces, {int(one["unique_id"]): np.atleast_2d(np.asarray(one["data"])) for one in mesh.attributes}
    except Exception:
        raise ValueError(f"{where} cannot be unpacked: its KHR_draco_mesh_compression is damaged") from None


def _lacking(where: str, extension: str, package: str) -> ValueError:
    return ValueError(f"{where} is compressed with {extension}, which takes the package {package}: {INSTALL}")
