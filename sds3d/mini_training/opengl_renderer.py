"""Draws parts offscreen with OpenGL: albedo, opacity, normals and depth, from many cameras in one go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from renderers.cameras import Cameras
from sds3d.mini_training.obj_loader import MaterialMesh

_VERTEX = """
#version 330
uniform mat4 view; uniform mat4 projection;
in vec3 position; in vec3 normal; in vec2 where;
out vec3 n; out vec3 p; out vec2 uv;
void main() {
    vec4 seen = view * vec4(position, 1.0);
    p = seen.xyz; n = normal; uv = where; gl_Position = projection * seen;
}
"""
_FRAGMENT = """
#version 330
uniform vec4 colour; uniform bool textured; uniform sampler2D picture; uniform mat4 view; uniform bool solid;
in vec3 n; in vec3 p; in vec2 uv;
layout(location = 0) out vec4 albedo; layout(location = 1) out vec4 facing; layout(location = 2) out float depth;
void main() {
    vec4 c = colour;
    if (textured) c *= texture(picture, uv);
    if (solid && c.a < 0.5) discard;
    vec3 m = normalize(n);
    if (dot(mat3(view) * m, p) > 0.0) m = -m;
    albedo = vec4(c.rgb * c.a, c.a);
    facing = vec4(m * 0.5 + 0.5, 1.0);
    depth = -p.z;
}
"""


@dataclass(frozen=True)
class RenderBuffers:
    """What B cameras saw, H x W pixels, all uint8 but depth."""

    albedo: np.ndarray
    """[B, H, W, 4] sRGB premultiplied by opacity, and opacity."""
    normal: np.ndarray
    """[B, H, W, 3] unit normals of the world, from -1..1 to 0..255, towards the camera; 0 where nothing was seen."""
    depth: np.ndarray
    """[B, H, W] float16 distance along the camera's axis, 0 where nothing was seen."""


class OffscreenRenderer:
    """An offscreen context with one atlas of `columns` x `rows` tiles, each `size` pixels after 2x2 supersampling."""

    def __init__(self, size: int, columns: int = 8, rows: int = 8) -> None:
        import moderngl

        self._size, self._columns, self._rows = size, columns, rows
        gl: Any = moderngl.create_context(standalone=True, backend="egl", libgl="libGL.so.1", libegl="libEGL.so.1")
        self._gl = gl
        wide, high = columns * size * 2, rows * size * 2
        self._targets = [
            gl.texture((wide, high), 4),
            gl.texture((wide, high), 4),
            gl.texture((wide, high), 1, dtype="f4"),
        ]
        self._frame = gl.framebuffer(self._targets, gl.depth_texture((wide, high)))
        self._program = gl.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)

    def __call__(self, parts: list[MaterialMesh], cameras: Cameras) -> RenderBuffers:
        """Draws all cameras, an atlas at a time."""
        with self._gl:  # Makes this context the current one: another drawer may have been used since.
            loaded = [self._upload(part) for part in parts]
            tiles = self._columns * self._rows
            drawn = [self._atlas(loaded, cameras[slice(i, i + tiles)]) for i in range(0, len(cameras), tiles)]
            for array, buffer, picture, _ in loaded:
                for thing in (array, buffer, picture):
                    if thing is not None:
                        thing.release()
        return RenderBuffers(
            *(np.concatenate([getattr(d, name) for d in drawn]) for name in ("albedo", "normal", "depth"))
        )

    def _upload(self, part: MaterialMesh) -> tuple[Any, Any, Any, MaterialMesh]:
        buffer = self._gl.buffer(np.ascontiguousarray(part.vertices).tobytes())
        array = self._gl.vertex_array(self._program, [(buffer, "3f 3f 2f", "position", "normal", "where")])
        picture = None
        if part.texture is not None:
            flipped = np.ascontiguousarray(part.texture[::-1])
            picture = self._gl.texture((flipped.shape[1], flipped.shape[0]), 4, flipped.tobytes())
            picture.build_mipmaps()
        return array, buffer, picture, part

    def _atlas(self, loaded: list[tuple[Any, Any, Any, MaterialMesh]], cameras: Cameras) -> RenderBuffers:
        gl, program, tile = self._gl, self._program, self._size * 2
        self._frame.use()
        self._frame.clear()
        gl.enable(gl.DEPTH_TEST)
        gl.disable(gl.CULL_FACE)
        views = np.linalg.inv(cameras.c2w.double().numpy())
        # Opaque parts first, then those that let light through, blended without writing depth.
        passes = [[item for item in loaded if (item[3].color[3] < 1.0) == clear] for clear in (False, True)]
        for number in range(len(cameras)):
            gl.viewport = ((number % self._columns) * tile, (number // self._columns) * tile, tile, tile)
            program["view"].write(views[number].T.astype("f4").tobytes())
            program["projection"].write(_projection(float(cameras.fov_y[number])).T.astype("f4").tobytes())
            for clear, items in zip((False, True), passes, strict=True):
                self._blend(clear)
                for array, _, picture, part in items:
                    program["colour"].value = tuple(float(value) for value in part.color)
                    program["textured"].value = picture is not None
                    program["solid"].value = not clear
                    if picture is not None:
                        picture.use(0)
                    array.render()
        self._blend(False)
        return self._read(len(cameras))

    def _blend(self, clear: bool) -> None:
        gl = self._gl
        if clear:
            gl.enable(gl.BLEND)
            gl.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
        else:
            gl.disable(gl.BLEND)
        self._frame.depth_mask = not clear
        every, none = (True,) * 4, (False,) * 4
        self._frame.color_mask = [every, none, none] if clear else [every, every, every]

    def _read(self, count: int) -> RenderBuffers:
        def tiles(index: int, channels: int, dtype: str) -> np.ndarray:
            raw = np.frombuffer(self._targets[index].read(), np.dtype(dtype)).astype(np.float32)
            size = self._size
            grid = raw.reshape(self._rows, size, 2, self._columns, size, 2, channels)
            return grid.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, size, size, 4, channels)[:count, ::-1]

        albedo, facing, depth = tiles(0, 4, "u1"), tiles(1, 4, "u1"), tiles(2, 1, "f4")
        hit = (facing[..., 3:] > 0).astype(np.float32)
        weight = np.maximum(hit.sum(-2), 1.0)
        normal = (facing[..., :3] * hit).sum(-2) / weight
        return RenderBuffers(
            albedo=np.round(albedo.mean(-2)).astype(np.uint8),
            normal=np.round(normal).astype(np.uint8),
            depth=((depth * hit).sum(-2) / weight)[..., 0].astype(np.float16),
        )


def _projection(fov_y: float, near: float = 0.5, far: float = 10.0) -> np.ndarray:
    """OpenGL's perspective matrix for square pictures."""
    f = 1 / math.tan(fov_y / 2)
    return np.array(
        [
            [f, 0, 0, 0],
            [0, f, 0, 0],
            [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)],
            [0, 0, -1, 0],
        ]
    )
