"""The plain torch twin of the mesh kernels: the oracle of the tests, and the fallback where nothing was compiled.

Right in float32 and float64 on any device, differentiable by autograd; about ten times slower. The rules
are those of renderers/csrc/mesh_*.cpp. Shapes: B pictures, P points, F triangles, H and W pixels, V values with C
channels, N pixels that see a triangle, S pairs of a triangle and a pixel, X crossings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from renderers.meshes.triangles import Fragments, SilhouetteCrossings, Topology

DRAWN_FROM = 0.01
"""Least depth that is drawn."""
BEHIND = 1e-4
"""Share of its depth that a surface must lie behind an outline to be hidden by it."""
PAIRS = 4_000_000
"""Pairs of a triangle and a pixel that are looked at at once."""
_MAX_DEPTH = 1e5
_NONE = 2.0


@torch.no_grad()
def rasterize(places: Float[Tensor, "B P 3"], triangles: Topology, height: int, width: int) -> Fragments:
    """The nearest triangle at every pixel's centre, of all whose box has the pixel."""
    pictures = [_rasterize_view(view, triangles, height, width) for view in places]
    face, bary, depth, area = (torch.stack(part) for part in zip(*pictures, strict=True))
    return Fragments(face, bary, depth, area)


def _rasterize_view(places: Tensor, triangles: Topology, height: int, width: int) -> tuple[Tensor, ...]:
    pixels = height * width
    face = torch.full((pixels,), -1, dtype=torch.int32, device=places.device)
    depth = places.new_full((pixels,), torch.inf)
    bary, area = places.new_zeros(pixels, 3), places.new_zeros(pixels)
    corners = places[triangles.corners.long()]
    low, size = _boxes(corners, height, width)
    count = size.prod(-1)
    portion = (count.cumsum(0) - count) // PAIRS
    for number in portion.unique().tolist() if len(portion) else []:
        rows = ((portion == number) & (count > 0)).nonzero()[:, 0]
        owner = rows.repeat_interleave(count[rows])
        inside = torch.arange(len(owner), device=places.device) - (
            count[rows].cumsum(0) - count[rows]
        ).repeat_interleave(count[rows])
        i, j = low[owner, 1] + inside // size[owner, 0], low[owner, 0] + inside % size[owner, 0]
        weights, near, doubled = _hits(corners[owner], torch.stack([j, i], -1) + 0.5)
        hit = near.isfinite().nonzero()[:, 0]
        # The nearest of each pixel; of equally near ones the first triangle.
        pixel, near = (i * width + j)[hit], near[hit]
        order = near.argsort(stable=True)
        order = order[pixel[order].argsort(stable=True)]
        order = order[torch.cat([order.new_ones(1), pixel[order].diff()]) != 0] if len(order) else order
        order = order[near[order] < depth[pixel[order]]]
        won, pair = pixel[order], hit[order]
        face[won], depth[won], bary[won], area[won] = owner[pair].int(), near[order], weights[pair], doubled[pair]
    depth = torch.where(face >= 0, depth, 0)
    return face.view(height, width), bary.view(height, width, 3), depth.view(height, width), area.view(height, width)


def _boxes(
    corners: Float[Tensor, "F 3 3"], height: int, width: int
) -> tuple[Int64[Tensor, "F 2"], Int64[Tensor, "F 2"]]:
    """First pixel and number of pixels of the box around each triangle's part ahead, x before y."""
    w = corners[..., 2]
    ahead = w >= DRAWN_FROM
    following, w_following = corners.roll(-1, 1), w.roll(-1, 1)
    # Where a side passes the least depth; of use only where it does.
    share = (DRAWN_FROM - w) / (w_following - w)
    cut = (corners + share[..., None] * (following - corners))[..., :2] / DRAWN_FROM
    points = torch.cat([corners[..., :2] / w[..., None], cut], 1)
    used = torch.cat([ahead, ahead != ahead.roll(-1, 1)], 1)[..., None]
    finite = corners.isfinite().flatten(1).all(1)[:, None, None]
    last = points.new_tensor([width - 1, height - 1])
    lowest = torch.where(used & finite, points, torch.inf).amin(1).clamp(-_MAX_DEPTH, _MAX_DEPTH)
    highest = torch.where(used & finite, points, -torch.inf).amax(1).clamp(-_MAX_DEPTH, _MAX_DEPTH)
    low = (lowest - 0.51).ceil().clamp_min(0)
    high = torch.minimum((highest - 0.49).floor(), last)
    return low.long(), (high - low + 1).clamp_min(0).long()


def _hits(
    corners: Float[Tensor, "S 3 3"], centre: Float[Tensor, "S 2"]
) -> tuple[Float[Tensor, "S 3"], Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Weights, depth (infinite where the triangle is not seen) and doubled area of pairs of a triangle and a pixel."""
    e = _edges(corners, centre)
    weights, depth, doubled = _weighed(e, corners[..., 2])
    plus, minus = (e >= 0).all(-1), (e <= 0).all(-1)
    sign = torch.where(plus, 1.0, -1.0)[:, None].to(e)
    a, b = corners.roll(-1, 1), corners.roll(-2, 1)
    right = sign * (a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1])
    down = sign * (a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2])
    owns = (e != 0) | (right > 0) | ((right == 0) & (down > 0))
    seen = (plus != minus) & owns.all(-1) & (depth >= DRAWN_FROM) & depth.isfinite()
    return weights, torch.where(seen, depth, torch.inf), doubled


def weigh(
    corners: Float[Tensor, "S 3 3"], centre: Float[Tensor, "S 2"]
) -> tuple[Float[Tensor, "S 3"], Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Weights, depth and doubled area of triangles at pixels which are known to see them."""
    return _weighed(_edges(corners, centre), corners[..., 2])


def _weighed(e: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total, doubled = e.sum(-1), (e * w).sum(-1)
    depth = doubled / total
    return e / total[:, None], depth, -doubled / depth**3


def _edges(corners: Float[Tensor, "S 3 3"], centre: Float[Tensor, "S 2"]) -> Float[Tensor, "S 3"]:
    """The three edge functions: det(corner k + 1, corner k + 2, centre)."""
    q = corners[..., :2] - corners[..., 2:] * centre[:, None]
    a, b = q.roll(-1, 1), q.roll(-2, 1)
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def interpolate(
    values: Float[Tensor, "V C"] | Float[Tensor, "B V C"],
    corners: Int32[Tensor, "F 3"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    fragments: Fragments,
) -> Float[Tensor, "B H W C"]:
    """Values given at corners, at every pixel; 0 where there is no triangle."""
    view, row, column = fragments.seen.nonzero(as_tuple=True)
    face = fragments.face[view, row, column].long()
    seen = places[view[:, None], triangles.corners[face].long()]
    e = _edges(seen, torch.stack([column, row], -1).to(places) + 0.5)
    weights = e / e.sum(-1, keepdim=True)
    rows = corners[face].long()
    given = values[rows] if values.ndim == 2 else values[view[:, None], rows]
    picture = values.new_zeros(*fragments.face.shape, values.shape[-1])
    return picture.index_put((view, row, column), (weights[..., None] * given).sum(1))


@dataclass(frozen=True)
class _Found:
    """Crossings, X of them."""

    view: Int64[Tensor, " X"]
    pair: Int64[Tensor, " X"]
    """Pixel to the left or above, row by row."""
    edge: Int64[Tensor, " X"]
    place: Float[Tensor, " X"]
    reach: Float[Tensor, " X"]
    """How far the surface reaches, from the centre of the pixel that shows it."""


@torch.no_grad()
def find_silhouettes(places: Float[Tensor, "B P 3"], triangles: Topology, fragments: Fragments) -> SilhouetteCrossings:
    """Where outlines pass between pixels."""
    height, width = fragments.face.shape[1:]
    edge = torch.full((len(places), 2, height * width), -1, dtype=torch.int32, device=places.device)
    place = places.new_zeros(edge.shape)
    for view in range(len(places)):
        for axis in range(2):
            found = _crossings(places[view], triangles, fragments, view, axis)
            # The outermost of each pair; of equal ones the first edge.
            order = found.edge.argsort(stable=True)
            order = order[(-found.reach[order]).argsort(stable=True)]
            order = order[found.pair[order].argsort(stable=True)]
            pair = found.pair[order]
            order = order[torch.cat([pair.new_ones(1), pair.diff()]) != 0] if len(order) else order
            edge[view, axis, found.pair[order]] = found.edge[order].int()
            place[view, axis, found.pair[order]] = found.place[order]
    return SilhouetteCrossings(edge.unflatten(-1, (height, width)), place.unflatten(-1, (height, width)))


def _sides(places: Float[Tensor, "P 3"], triangles: Topology) -> Int64[Tensor, " E"]:
    """On which side of each edge all its triangles lie, 1 or -1; 0 where it is no outline."""
    a, b, c = places[triangles.corners.long()].unbind(1)
    facing = (torch.linalg.cross(a, b) * c).sum(-1).sign()
    wings = triangles.edges.edge_faces.long()
    here = facing[wings // 2] * (1 - 2 * (wings % 2))
    edge = torch.arange(len(triangles.edges.vertices), device=places.device).repeat_interleave(
        triangles.edges.face_offsets.diff()
    )
    count = torch.zeros(2, len(triangles.edges.vertices), device=places.device, dtype=places.dtype)
    plus, minus = (
        row.index_add(0, edge, (here == sign).to(places)) > 0 for row, sign in zip(count, (1, -1), strict=True)
    )
    return torch.where(plus & ~minus, 1, torch.where(minus & ~plus, -1, 0))


def _crossings(places: Float[Tensor, "P 3"], triangles: Topology, fragments: Fragments, view: int, axis: int) -> _Found:
    """All crossings of outlines with rows (axis 0) or columns (axis 1) of pixel centres between two pixels."""
    height, width = fragments.face.shape[1:]
    lines, steps = (height, width) if axis == 0 else (width, height)
    side = _sides(places, triangles)
    edge = side.nonzero()[:, 0]
    a, b = places[triangles.edges.vertices[edge].long()].unbind(1)
    edge, line = _lines(edge, torch.stack([a, b], 1)[..., [1 - axis, 2]], lines)
    a, b = places[triangles.edges.vertices[edge].long()].unbind(1)
    at, share = _place(a, b, line.to(places) + 0.5, axis)
    w = a[:, 2] + share * (b[:, 2] - a[:, 2])
    function = torch.linalg.cross(a, b)[:, axis] * side[edge]
    before = at.nan_to_num(-1.0).floor().clamp(0, max(steps - 2, 0)).long()
    good = (w >= DRAWN_FROM) & (at >= 0) & (at < steps - 1)
    inner = function < 0
    pixel = line * width + before if axis == 0 else before * width + line
    following = (pixel + (1 if axis == 0 else width)).clamp_max(height * width - 1)
    near, far = torch.where(inner, pixel, following), torch.where(inner, following, pixel)
    face, depth = fragments.face[view].flatten(), fragments.depth[view].flatten()
    good &= (face[near] >= 0) & ((face[far] < 0) | (depth[far] > w * (1 + BEHIND)))
    place = at - before
    reach = torch.where(inner, place, 1 - place)
    return _Found(torch.full_like(edge, view)[good], pixel[good], edge[good], place[good], reach[good])


def _lines(
    edge: Int64[Tensor, " E"], ends: Float[Tensor, "E 2 2"], lines: int
) -> tuple[Int64[Tensor, " X"], Int64[Tensor, " X"]]:
    """Edges and the lines they cross; `ends` holds the homogeneous place of both ends across the lines."""
    place, w = ends.unbind(-1)
    ahead = w >= DRAWN_FROM
    cut = (place + (DRAWN_FROM - w) / (w.flip(1) - w) * (place.flip(1) - place)) / DRAWN_FROM
    flat = torch.where(ahead, place / w, cut).nan_to_num(0.0).clamp(-_MAX_DEPTH, _MAX_DEPTH)
    low = (flat.amin(1) - 0.5).floor().clamp(0, lines - 1).long()
    high = (flat.amax(1) - 0.5).ceil().clamp(0, lines - 1).long()
    count = torch.where(ahead.any(1), high - low + 1, 0)
    which = torch.arange(len(edge), device=edge.device).repeat_interleave(count)
    line = low[which] + torch.arange(len(which), device=edge.device) - (count.cumsum(0) - count)[which]
    a, b = ((place[which] - w[which] * (line + 0.5)[:, None]) >= 0).unbind(1)
    return edge[which][a != b], line[a != b]


def _place(
    a: Float[Tensor, "X 3"], b: Float[Tensor, "X 3"], centre: Float[Tensor, " X"], axis: int
) -> tuple[Float[Tensor, " X"], Float[Tensor, " X"]]:
    """Where edges cross lines, in pixels from the first centre, and the share of the second end there."""
    across = 1 - axis
    from_a, from_b = a[:, across] - a[:, 2] * centre, b[:, across] - b[:, 2] * centre
    share = from_a / (from_a - from_b)
    w = a[:, 2] + share * (b[:, 2] - a[:, 2])
    return (a[:, axis] + share * (b[:, axis] - a[:, axis])) / w - 0.5, share


def antialias(
    picture: Float[Tensor, "B H W C"],
    places: Float[Tensor, "B P 3"],
    triangles: Topology,
    crossings: SilhouetteCrossings,
) -> Float[Tensor, "B H W C"]:
    """The picture with smooth outlines: pixels take from a neighbour what the outline leaves of them."""
    view, axis, row, column = (crossings.edge >= 0).nonzero(as_tuple=True)
    ends = triangles.edges.vertices[crossings.edge[view, axis, row, column].long()].long()
    a, b = places[view, ends[:, 0]], places[view, ends[:, 1]]
    across = _place(a, b, row.to(places) + 0.5, 0)[0] - column
    down = _place(a, b, column.to(places) + 0.5, 1)[0] - row
    at = places.new_full(crossings.edge.shape, _NONE)
    at = at.index_put((view, axis, row, column), torch.where(axis == 0, across, down))
    right, below = at.unbind(1)
    left = _moved(torch.where(right < _NONE, 1 - right, _NONE), 2)
    above = _moved(torch.where(below < _NONE, 1 - below, _NONE), 1)
    by_row = torch.minimum(left, right) <= torch.minimum(above, below)
    smooth = picture
    for distance, chosen, shift, dim in (
        (right, by_row, -1, 2), (left, by_row, 1, 2), (below, ~by_row, -1, 1), (above, ~by_row, 1, 1)
    ):  # fmt: skip
        share = torch.where(chosen & (distance < 0.5), 0.5 - distance, 0)[..., None]
        smooth = smooth + share * (picture.roll(shift, dim) - picture)
    return smooth


def _moved(distance: Float[Tensor, "B H W"], dim: int) -> Float[Tensor, "B H W"]:
    """One pixel on along an axis, nothing coming in."""
    coming = torch.full_like(distance.narrow(dim, 0, 1), _NONE)
    return torch.cat([coming, distance.narrow(dim, 0, distance.shape[dim] - 1)], dim)


def texture_lookup(
    texture: Float[Tensor, "T T C"],
    uv: Float[Tensor, "B H W 2"],
    detail: Float[Tensor, "B H W"],
    mask: Bool[Tensor, "B H W"],
    levels: int,
) -> Float[Tensor, "B H W C"]:
    """A texture at places in it, trilinear between its halvings; 0 where nothing is wanted."""
    level = detail[mask].clamp(0, levels - 1)
    grid = uv[mask][None, None] * 2 - 1
    picture = texture.permute(2, 0, 1)[None]
    values = texture.new_zeros(len(level), texture.shape[-1])
    for number in range(levels):
        share = (1 - (level - number).abs()).clamp_min(0)
        shown = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
        values = values + share[:, None] * shown[0, :, 0].T
        if number + 1 < levels:
            picture = functional.avg_pool2d(picture, 2)
    return texture.new_zeros(*mask.shape, texture.shape[-1]).index_put((mask,), values)
