"""Run by an interpreter that has bpy: opens files in Blender and says what is there. Needs nothing else of ours.

Usage: python blender_reads.py JOB.json, with {"files": [...], "out": "answers.json"} and, to have pictures too,
{"render": FILE, "c2w": [[4 x 4], ...], "fov": radians, "size": pixels, "folder": where to}; to have Blender's own
tangents of the corners of a glTF file, {"tangents": FILE}.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

TURN = Matrix(((1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)))
"""From +Y up to Blender's +Z up."""


def opened(path: str) -> list[bpy.types.Object]:
    """The mesh objects of a file."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    kind = Path(path).suffix
    if kind in (".glb", ".gltf"):
        bpy.ops.import_scene.gltf(filepath=path)
    elif kind == ".obj":
        bpy.ops.wm.obj_import(filepath=path)
    elif kind == ".ply":
        bpy.ops.wm.ply_import(filepath=path)
    elif kind == ".stl":
        bpy.ops.wm.stl_import(filepath=path)
    else:
        bpy.ops.wm.usd_import(filepath=path)
    bpy.context.view_layer.update()
    return [thing for thing in bpy.data.objects if thing.type == "MESH"]


def numbers(collection: bpy.types.bpy_prop_collection, name: str, width: int) -> np.ndarray:
    values = np.empty(len(collection) * width, np.float32)
    collection.foreach_get(name, values)
    return values.reshape(-1, width) if width > 1 else values


def told(path: str) -> dict[str, object]:
    """What Blender has of a file."""
    things = opened(path)
    if len(things) != 1:
        return {"objects": len(things)}
    thing = things[0]
    mesh = thing.data
    turn = np.array(thing.matrix_world)
    points = numbers(mesh.vertices, "co", 3) @ turn[:3, :3].T + turn[:3, 3]
    corner = numbers(mesh.loops, "vertex_index", 1).astype(int)
    start = numbers(mesh.polygons, "loop_start", 1).astype(int)
    corners = corner[start[:, None] + np.arange(3)]
    flat = np.cross(points[corners[:, 1]] - points[corners[:, 0]], points[corners[:, 2]] - points[corners[:, 0]])
    smooth = np.array([tuple(n.vector) for n in mesh.corner_normals]) @ np.linalg.inv(turn[:3, :3])
    facing = (smooth[start[:, None] + np.arange(3)] * flat[:, None]).sum(-1)
    images = [image for image in bpy.data.images if image.has_data or image.packed_file or image.filepath]
    images = [image for image in images if image.type == "IMAGE" and image.name != "Render Result"]
    answer: dict[str, object] = {
        "objects": 1,
        "faces": len(mesh.polygons),
        "low": points.min(0).tolist(),
        "high": points.max(0).tolist(),
        "materials": len(mesh.materials),
        "uv": len(mesh.uv_layers),
        "images": [[image.size[0], image.size[1]] for image in images],
        "normals_right": float((facing > 0).mean()),
        "tip": points[points[:, 2].argmax()].tolist(),
        "volume": float((points[corners[:, 0]] * np.cross(points[corners[:, 1]], points[corners[:, 2]])).sum() / 6),
    }
    middles = points[corners].mean(1)
    colours = None
    if mesh.uv_layers and images:
        image = next((i for i in images if "rough" not in i.name and "normal" not in i.name), images[0])
        pixels = np.array(image.pixels[:]).reshape(image.size[1], image.size[0], -1)
        uv = numbers(mesh.uv_layers[0].data, "uv", 2)[start[:, None] + np.arange(3)].mean(1)
        colours = pixels[
            (uv[:, 1] * image.size[1]).astype(int).clip(0, image.size[1] - 1),
            (uv[:, 0] * image.size[0]).astype(int).clip(0, image.size[0] - 1),
            :3,
        ]
    elif mesh.color_attributes:
        layer = mesh.color_attributes[0]
        values = np.array([tuple(c.color_srgb)[:3] for c in layer.data])
        colours = (values[corners] if layer.domain == "POINT" else values[start[:, None] + np.arange(3)]).mean(1)
    if colours is not None and len(colours) < 1000:
        answer["triangles"] = np.concatenate([middles, 255 * colours], -1).tolist()
    shader = next((m for m in mesh.materials if m and m.node_tree), None)
    if shader:
        principled = next((n for n in shader.node_tree.nodes if n.type == "BSDF_PRINCIPLED"), None)
        if principled:
            answer["metallic"] = principled.inputs["Metallic"].default_value
            answer["roughness"] = principled.inputs["Roughness"].default_value
            answer["textured"] = bool(principled.inputs["Base Color"].links)
    return answer


def pictures(job: dict) -> None:
    """The asset by Cycles, its texture as light, seen by the given cameras."""
    things = opened(job["render"])
    for material in things[0].data.materials:
        nodes, links = material.node_tree.nodes, material.node_tree.links
        picture = next(node for node in nodes if node.type == "TEX_IMAGE")
        light = nodes.new("ShaderNodeEmission")
        links.new(picture.outputs["Color"], light.inputs["Color"])
        output = next(node for node in nodes if node.type == "OUTPUT_MATERIAL")
        links.new(light.outputs["Emission"], output.inputs["Surface"])
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 16
    scene.cycles.use_denoising = False
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = job["size"]
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.color_mode = "RGBA"
    eye = bpy.data.cameras.new("eye")
    eye.sensor_fit, eye.angle = "VERTICAL", job["fov"]
    holder = bpy.data.objects.new("eye", eye)
    scene.collection.objects.link(holder)
    scene.camera = holder
    assert math.isclose(eye.angle_y, job["fov"], rel_tol=1e-3)
    for index, matrix in enumerate(job["c2w"]):
        holder.matrix_world = TURN @ Matrix(matrix)
        scene.render.filepath = str(Path(job["folder"]) / f"{index}.png")
        bpy.ops.render.render(write_still=True)


def tangents(path: str) -> list[list[float]]:
    """For every corner its point, and the tangent and the sign that Blender makes of the texture coordinates."""
    mesh = opened(path)[0].data
    mesh.calc_tangents()
    return [
        [*mesh.vertices[loop.vertex_index].co, *loop.tangent, loop.bitangent_sign, *loop.normal] for loop in mesh.loops
    ]


wanted = json.loads(Path(sys.argv[1]).read_text())
answers = {path: told(path) for path in wanted["files"]}
if "tangents" in wanted:
    answers["tangents"] = tangents(wanted["tangents"])
answers["version"] = bpy.app.version_string
Path(wanted["out"]).write_text(json.dumps(answers))
if "render" in wanted:
    pictures(wanted)
