"""The C++ mesh kernels (renderers/csrc/mesh.h) as differentiable functions of CPU float32 tensors.

Memory is allocated here and owned by torch; the kernels keep nothing. Results do not depend on the number of
threads: rows share nothing on the way there, and on the way back every picture sums into memory of its own.
The callers in renderers.meshes.rasterization have checked shapes and indices.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from renderers import kernels
from renderers.meshes.triangles import Fragments, SilhouetteCrossings, Topology

_WORTH_THREADS = 150_000
"""Below about this many triangles and pixels one thread is done before others have woken up."""


class _Mesh(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("views", "points", "faces", "edges", "height", "width", "threads")),
        *((name, ctypes.c_void_p) for name in ("places", "corners", "ends", "first", "wings")),
    ]


class _Seen(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("face", "bary", "depth", "area")]


class _Values(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "channels", "per_view")),
        *((n, ctypes.c_void_p) for n in ("values", "corners", "picture", "d_picture", "d_values", "d_places")),
    ]


class _Crossings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("edge", "place")]


class _Images(ctypes.Structure):
    _fields_ = [
        ("channels", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("picture", "smooth", "d_smooth", "d_picture", "d_places")),
    ]


class _Texture(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("size", "channels", "levels", "count", "threads")),
        *((name, ctypes.c_void_p) for name in ("texels", "places", "detail", "wanted", "values")),
        *((name, ctypes.c_void_p) for name in ("d_values", "d_texels", "d_places")),
    ]


def rasterize(places: Float[Tensor, "B P 3"], triangles: Topology, height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre."""
    places = _plain(places.detach())
    views = len(places)
    face = torch.empty(views, height, width, dtype=torch.int32)
    fragments = Fragments(face, torch.empty(views, height, width, 3), torch.empty(face.shape), torch.empty(face.shape))
    _call("rasterise", _mesh(places, triangles, height, width), _seen(fragments))
    return fragments


def find_silhouettes(places: Float[Tensor, "B P 3"], triangles: Topology, fragments: Fragments) -> SilhouetteCrossings:
    """Where outlines pass between pixels."""
    places = _plain(places.detach())
    views, height, width = fragments.face.shape
    edge = torch.empty(views, 2, height, width, dtype=torch.int32)
    crossings = SilhouetteCrossings(edge, torch.empty(edge.shape))
    _call("outline", _edged(places, triangles, height, width), _seen(fragments), _crossings(crossings))
    return crossings


def interpolate(
    values: Float[Tensor, "V C"] | Float[Tensor, "B V C"],
    corners: Int32[Tensor, "F 3"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    fragments: Fragments,
) -> Float[Tensor, "B H W C"]:
    """Values given at corners, at every pixel; 0 where there is no triangle."""
    picture: Tensor = _Interpolate.apply(values.contiguous(), places.contiguous(), corners, triangles, fragments)  # type: ignore[no-untyped-call]
    return picture


def antialias(
    picture: Float[Tensor, "B H W C"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    crossings: SilhouetteCrossings,
) -> Float[Tensor, "B H W C"]:
    """The picture with smooth outlines."""
    smooth: Tensor = _Antialias.apply(picture.contiguous(), places.contiguous(), triangles, crossings)  # type: ignore[no-untyped-call]
    return smooth


def texture_lookup(
    texture: Float[Tensor, "T T C"],
    uv: Float[Tensor, "B H W 2"],
    detail: Float[Tensor, "B H W"],
    mask: Bool[Tensor, "B H W"],
    levels: int,
) -> Float[Tensor, "B H W C"]:
    """A texture at places in it, trilinear between its halvings; 0 where nothing is wanted."""
    values: Tensor = _TextureLookup.apply(texture.contiguous(), uv.contiguous(), detail, mask, levels)  # type: ignore[no-untyped-call]
    return values


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        values, places, corners, triangles, fragments = arguments
        values, places = _plain(values), _plain(places)
        views, height, width = fragments.face.shape
        picture = torch.empty(views, height, width, values.shape[-1])
        table = _values(values, corners)
        table.picture = picture.data_ptr()
        _call("blend", _mesh(places, triangles, height, width), _seen(fragments), table)
        ctx.save_for_backward(values, places)
        ctx.rest = corners, triangles, fragments
        return picture

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        values, places = ctx.saved_tensors
        corners, triangles, fragments = ctx.rest
        views, height, width = fragments.face.shape
        d_picture = gradients[0].contiguous()
        table = _values(values, corners)
        table.d_picture = d_picture.data_ptr()
        d_values = d_places = None
        if ctx.needs_input_grad[0]:
            d_values = torch.zeros(views, *values.shape[-2:])
            table.d_values = d_values.data_ptr()
        if ctx.needs_input_grad[1]:
            d_places = torch.zeros_like(places)
            table.d_places = d_places.data_ptr()
        _call("blend_backward", _mesh(places, triangles, height, width), _seen(fragments), table)
        if d_values is not None and values.ndim == 2:
            d_values = d_values[0] if views == 1 else d_values.sum(0)
        return d_values, d_places, None, None, None


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        picture, places, triangles, crossings = arguments
        picture, places = _plain(picture), _plain(places)
        smooth = torch.empty_like(picture)
        table = _Images(picture.shape[-1], picture.data_ptr(), smooth.data_ptr())
        mesh = _edged(places, triangles, *picture.shape[1:3])
        _call("antialias", mesh, _crossings(crossings), table)
        ctx.save_for_backward(picture, places)
        ctx.rest = triangles, crossings
        return smooth

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        picture, places = ctx.saved_tensors
        triangles, crossings = ctx.rest
        d_smooth = gradients[0].contiguous()
        d_picture = torch.empty_like(picture)
        d_places = torch.zeros_like(places) if ctx.needs_input_grad[1] else None
        moved = None if d_places is None else d_places.data_ptr()
        channels = picture.shape[-1]
        table = _Images(channels, picture.data_ptr(), None, d_smooth.data_ptr(), d_picture.data_ptr(), moved)
        mesh = _edged(places, triangles, *picture.shape[1:3])
        _call("antialias_backward", mesh, _crossings(crossings), table)
        return d_picture, d_places, None, None


class _TextureLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        texture, uv, detail, wanted, levels = arguments
        size, _, channels = texture.shape
        uv, detail, wanted = _plain(uv), _plain(detail), wanted.contiguous()
        # The halvings lie behind the texture itself, in one piece.
        texels = torch.empty(sum((size >> level) ** 2 for level in range(levels)), channels)
        texels[: size * size] = _plain(texture).view(-1, channels)
        values = torch.empty(*uv.shape[:-1], channels)
        table = _texture(texels, uv, detail, wanted, (size, levels))
        table.values = values.data_ptr()
        _call("texture", table)
        ctx.save_for_backward(texels, uv, detail, wanted)
        ctx.sizes = size, levels
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        texels, uv, detail, wanted = ctx.saved_tensors
        d_values = gradients[0].contiguous()
        d_texels, d_uv = torch.zeros_like(texels), torch.empty_like(uv)
        table = _texture(texels, uv, detail, wanted, ctx.sizes)
        table.d_values, table.d_texels = d_values.data_ptr(), d_texels.data_ptr()
        table.d_places = d_uv.data_ptr() if ctx.needs_input_grad[1] else None
        _call("texture_backward", table)
        size = ctx.sizes[0]
        d_texture = d_texels[: size * size].view(size, size, -1)
        return d_texture, d_uv if ctx.needs_input_grad[1] else None, None, None, None


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, contiguous. Raises ValueError for other types or devices than the kernels take."""
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise ValueError(f"the kernels take float32 tensors on the CPU, not {tensor.dtype} on {tensor.device}")
    return tensor.contiguous()


def _call(name: str, *tables: ctypes.Structure) -> None:
    library = kernels.library()
    if library is None:
        raise OSError(kernels.why_missing())
    getattr(library, f"sds3d_mesh_{name}")(*(ctypes.byref(table) for table in tables))


def _mesh(places: Tensor, triangles: Topology, height: int, width: int) -> _Mesh:
    views = len(places)
    threads = torch.get_num_threads() if views * (len(triangles) + height * width) >= _WORTH_THREADS else 1
    sizes = views, triangles.points, len(triangles), 0, height, width, threads
    return _Mesh(*sizes, places.data_ptr(), triangles.corners.data_ptr())


def _edged(places: Tensor, triangles: Topology, height: int, width: int) -> _Mesh:
    """The same, with edges, which take time to find."""
    mesh, edges = _mesh(places, triangles, height, width), triangles.edges
    mesh.edges = len(edges.vertices)
    mesh.ends, mesh.first, mesh.wings = (t.data_ptr() for t in (edges.vertices, edges.face_offsets, edges.edge_faces))
    return mesh


def _seen(fragments: Fragments) -> _Seen:
    tensors = fragments.face, fragments.bary, fragments.depth, fragments.area
    return _Seen(*(tensor.data_ptr() for tensor in tensors))


def _crossings(crossings: SilhouetteCrossings) -> _Crossings:
    return _Crossings(crossings.edge.data_ptr(), crossings.offset.data_ptr())


def _values(values: Tensor, corners: Tensor) -> _Values:
    return _Values(*values.shape[-2:], int(values.ndim == 3), values.data_ptr(), corners.data_ptr())


def _texture(texels: Tensor, uv: Tensor, detail: Tensor, mask: Tensor, sizes: tuple[int, int]) -> _Texture:
    size, levels = sizes
    count = mask.numel()
    threads = torch.get_num_threads() if count + len(texels) >= _WORTH_THREADS else 1
    tensors = texels, uv, detail, mask
    return _Texture(size, texels.shape[-1], levels, count, threads, *(tensor.data_ptr() for tensor in tensors))
