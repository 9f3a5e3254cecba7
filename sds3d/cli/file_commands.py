"""The commands of `sds3d` about files: write one of a run, look into one, make one's run once more."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from sds3d.cli.arguments import add_strict, add_trust, add_verbosity_flags, console_of, parser
from sds3d.export.targets import FORMATS, QUADS, TARGETS, ExportOptions, resolve_options


def export(words: list[str]) -> int:
    """`sds3d export RUN --target blender`, or `--format glb`: a run as a file."""
    from sds3d.export.export import check_writable
    from sds3d.export.export import export as write
    from sds3d.runs.result import Result
    from sds3d.runs.run_directory import RunDirectory
    from sds3d.training.loop import load_latest_checkpoint

    given = _export_flags().parse_args(words)
    console, record = console_of(given), RunDirectory.open(given.run, given.trust)
    asked = _asked(given)
    target = given.to or given.run / _name(asked)
    check_writable(asked, target)
    made = Result.from_state(load_latest_checkpoint(record, console, given.strict), record.config())
    for file in write(made, asked, target):
        told = file.told()
        size = f"{file.path.stat().st_size / 1e6:.1f} MB"
        what = size if file.match is None else f"{file.faces} faces, {size}; against the scene {file.match}"
        console.log(f"{file.path}: {'; '.join((what, *file.remarks))}", **told)
    return 0


def _export_flags() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {name:10}{kind.description}" for name, kind in FORMATS.items())
    targets = "\n".join(f"  {name:10}{', '.join(t.kinds)}: {t.about}" for name, t in TARGETS.items())
    p = parser(
        "sds3d export",
        "Makes the mesh of a run anew, writes it, and opens the file again to see that all arrived; the run's folder "
        f"alone is enough.\n\nformats:\n{kinds}\n\ntargets:\n{targets}",
    )
    p.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    p.add_argument(
        "--format", choices=FORMATS, metavar="NAME", help="kind of file (default: glb, or the target's first)"
    )
    p.add_argument("--target", choices=TARGETS, metavar="NAME", help=f"who will open it: {', '.join(TARGETS)}")
    p.add_argument("--to", type=Path, metavar="FILE", help="the file; by default RUN/asset and the format's ending")
    p.add_argument("--faces", type=int, metavar="N", help="most triangles of the mesh")
    p.add_argument("--texture", "--texture-size", type=int, metavar="PIXELS", help="texels along a side of the texture")
    p.add_argument("--size-m", type=float, metavar="METRES", help="longest side; by default the scene's own units")
    p.add_argument("--up", choices=("y", "z"), help="which way is up in the file")
    p.add_argument("--unit", choices=("m", "cm", "mm"), help="what 1 is in the file")
    p.add_argument("--origin", choices=("free", "ground", "centre"), help="feet on the ground, or middle in the origin")
    p.add_argument("--lods", type=int, default=1, metavar="N", help="files with ever half as many triangles")
    p.add_argument("--normal-map", action=argparse.BooleanOptionalAction, help="bake the surface before simplification "
                   "into a normal map; unity and web get one where it helps")  # fmt: skip
    p.add_argument("--refine-texture", type=int, default=0, metavar="N", help="refine the texture by N pictures of the "
                   "scene, 80 for instance")  # fmt: skip
    p.add_argument("--quad", action="store_true", help=f"quads instead of triangles ({', '.join(QUADS)})")
    p.add_argument("--flat-base", action="store_true", help="press the lowest 2%% flat (target print)")
    p.add_argument("--sh-degree", type=int, metavar="N", help="pad harmonics with zeros up to this degree (splat-ply)")
    add_strict(p)
    add_trust(p)
    add_verbosity_flags(p)
    return p


def _asked(given: argparse.Namespace) -> ExportOptions:
    """What the flags ask for. Raises ValueError."""
    asked = resolve_options(given.target, given.format)
    lying = {"up": given.up, "unit": given.unit, "origin": given.origin, "size_m": given.size_m}
    changed = {name: value for name, value in lying.items() if value is not None}
    if asked.kind in ("glb", "gltf") and (changed.get("up", "y"), changed.get("unit", "m")) != ("y", "m"):
        raise ValueError("glTF has Y up and metres, always; programs turn and scale it as they open it")
    if asked.kind == "3mf" and changed.get("up", "z") != "z":
        raise ValueError("3MF has Z up, always")
    if changed and FORMATS[asked.kind].content != "mesh":
        raise ValueError(f"{asked.kind} holds no mesh; --up, --unit, --origin and --size-m go with formats that do")
    made = replace(asked, layout=replace(asked.layout, **changed), lods=given.lods, flat_base=given.flat_base)
    made = replace(made, faces=given.faces if given.faces is not None else made.faces, quad=given.quad)
    made = replace(made, texture=given.texture or made.texture, degree=given.sh_degree, refine=given.refine_texture)
    return made if given.normal_map is None else replace(made, normal_map=given.normal_map)


def _name(asked: ExportOptions) -> str:
    """What the file is called unless it is given a name."""
    kind = FORMATS[asked.kind]
    match asked.kind:
        case "splat-ply" | "splat" | "spz" | "splat-glb":
            return f"splats.{kind.ending}"
        case "mp4" | "gif" | "webp":
            return f"turntable.{kind.ending}"
        case "contact" | "card":
            return f"{asked.kind}.{kind.ending}"
    return f"asset.{kind.ending}"


def check(words: list[str]) -> int:
    """`sds3d check FILE`: what a file holds, and what is wrong with it; 1 where something is."""
    from sds3d.export.check import check as look

    p = parser("sds3d check", "Says what a file holds and what is wrong with it (exit code 1 where something is).")
    p.add_argument("file", type=Path, metavar="FILE", help="GLB, glTF, OBJ, PLY, STL, 3MF or USD; .splat, .spz")
    p.add_argument("--json", action="store_true", help="as JSON")
    given = p.parse_args(words)
    report = look(given.file)
    console = console_of(argparse.Namespace(json=False, quiet=False))
    if given.json:
        console.log(json.dumps(report, indent=1))
    else:
        for name, value in report.items():
            console.log(f"{name.replace('_', ' '):16}{_plain(value)}")
    return 1 if report["problems"] else 0


def _plain(value: object) -> str:
    """A value of a report for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        apart = " x " if value and all(isinstance(part, int | float) for part in value) else "; "
        return apart.join(map(_plain, value)) or "none"
    if value is None:
        return "unknown"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def reproduce(words: list[str]) -> int:
    """`sds3d reproduce FILE --out FOLDER`: the run that a file came from, once more; 1 where it gives another scene."""
    from sds3d.cli.arguments import GenerateArgs
    from sds3d.cli.commands import free_folder, launch
    from sds3d.runs.reproduce import config_from_file, differences, same

    p = parser("sds3d reproduce", "Runs once more what a file of sds3d came from, and says whether it gave the same.")
    p.add_argument("file", type=Path, metavar="FILE", help="any file that sds3d export wrote")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; by default under runs/")
    add_trust(p)
    add_verbosity_flags(p)
    given = p.parse_args(words)
    console = console_of(given)
    facts, config = config_from_file(given.file, given.trust)
    for line in differences(facts, config):
        console.log(line)
    folder = given.out or free_folder(config.prompt)
    if code := launch(GenerateArgs(config, folder, console, given.trust)):
        return code
    alike, told = same(facts, folder, given.trust)
    console.log(told, same=alike)
    return 0 if alike else 1
