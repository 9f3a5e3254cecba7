"""Command-line arguments: a run's dataclasses are its flags, their docstrings the help."""

from __future__ import annotations

import argparse
import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from configs.presets import PRESETS, preset
from configs.registry import SCENES, TIMESTEP_SAMPLERS, objective_names, scene_class, timestep_sampler_class
from configs.run import Region, RunConfig
from guidance.timesteps import AnnealedUniform
from renderers.meshes.config import MAX_TEXTURE_SIZE, MeshConfig
from sds3d.console import Console, Mode
from sds3d.mesh_import.load import texture_size
from sds3d.models.loading import MINI, is_mini


@dataclass(frozen=True)
class GenerateArgs:
    """What `sds3d generate` was asked."""

    config: RunConfig
    out: Path | None
    console: Console
    trust: bool = False
    """Whether modules that files name are imported."""


_GENERATE = "sds3d generate"
PLAN = "sds3d plan"
_ABOUT = {
    _GENERATE: "Turns a prompt into a textured mesh.",
    PLAN: "Measures time and memory of the run that `sds3d generate` would make of the same words.",
}
EDITS = "dds"
"""The objective of an edit where none is chosen: it keeps what the prompt does not change."""
_EDIT = "sds3d edit"
_REFINE = "sds3d refine"
_TEXTURE = "sds3d texture"
REFINE_TIMESTEPS = AnnealedUniform((0.1, 0.6), (0.02, 0.3))
"""Noise times for a scene that is nearly what it should be."""
_NOT_GIVEN = "not given"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def parser(program: str, description: str) -> Parser:
    """A parser for `program` whose help keeps the description's lines."""
    return Parser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def add_verbosity_flags(flags: argparse.ArgumentParser) -> None:
    """The flags that say how much is told."""
    flags.add_argument("--quiet", action="store_true", help="tell nothing but errors")
    flags.add_argument("--json", action="store_true", help="tell everything as JSON, one object a line")


def add_trust(flags: argparse.ArgumentParser) -> None:
    """The flag that lets files decide which modules are imported."""
    flags.add_argument("--trust", action="store_true", help="import the module:Class that a file names, if any")


def add_strict(flags: argparse.ArgumentParser) -> None:
    """The flag that makes damaged checkpoints an error."""
    flags.add_argument("--strict", action="store_true", help="end with exit code 2 where a checkpoint is damaged")


def console_of(flags: argparse.Namespace) -> Console:
    """The console that `add_verbosity_flags` asks for."""
    mode: Mode = "json" if flags.json else "quiet" if flags.quiet else "live"
    return Console(mode)


def generate(arguments: list[str], program: str = _GENERATE) -> GenerateArgs:
    """The run that `sds3d generate` is asked for.

    Preset, objective, times, scene and prior are read first, for they decide which other flags there are and their
    defaults.

    Raises:
        ValueError: a name that does not exist, or a value that does not fit.
    """
    first = _base_parser(program)
    first.add_argument("--scene", metavar="NAME", help=f"what is optimised: {', '.join(SCENES)} (default: splats)")
    picked, rest = first.parse_known_args(arguments)
    start = _initial_config(picked, rest)
    if picked.scene is not None and scene_class(picked.scene) is not type(start.scene):
        scene = scene_class(picked.scene)()
        start = replace(start, scene=scene, cameras=scene.orbit)
    run = _parsed(program, rest, start, f"{_ABOUT[program]}\n\n{first.format_help()}")
    return GenerateArgs(run, picked.out, console_of(picked))


def edit(arguments: list[str], before: Callable[[Path, bool], RunConfig]) -> GenerateArgs:
    """The run that `sds3d edit` is asked for: scene, prior and cameras are those of the run it starts from.

    Args:
        before: reads what was asked of a run, from its folder; the second value is whether modules are trusted.

    Raises:
        ValueError: as `generate`.
        FileNotFoundError: there is no such run.
    """
    first = _base_parser(_EDIT)
    picked, rest = _with_path(first, "RUN", f"{_EDIT} runs/demo PROMPT", arguments)
    picked.objective = picked.objective or EDITS
    start = _initial_config(picked, rest)
    if picked.path is not None:
        old = before(picked.path, picked.trust)
        start = replace(
            start,
            source_run=os.path.abspath(picked.path),
            scene=old.scene,
            init_mesh=old.init_mesh,
            cameras=old.cameras,
        )
        start = replace(start, prior=old.prior, mesh_extraction=old.mesh_extraction, device=old.device)
        start = replace(start, prior_options=replace(old.prior_options, offline=picked.offline))
    about = "Changes a finished asset to what another prompt says; with --objective sds, and so on, it goes on freely."
    run = _parsed(_EDIT, rest, start, f"{about}\n\n{first.format_help()}")
    return GenerateArgs(run, picked.out, console_of(picked), picked.trust)


def refine(arguments: list[str], before: Callable[[Path, bool], RunConfig]) -> GenerateArgs:
    """The run that `sds3d refine` is asked for: the mesh of a finished run, trained on. Raises as `edit`."""
    first = _base_parser(_REFINE)
    picked, rest = _with_path(first, "RUN", f"{_REFINE} runs/demo", arguments)
    start = replace(
        _initial_config(picked, rest),
        scene=MeshConfig(),
        timesteps=timestep_sampler_class(picked.timesteps)() if picked.timesteps else REFINE_TIMESTEPS,
    )
    if picked.path is not None:
        old = before(picked.path, picked.trust)
        start = replace(
            start, prompt=old.prompt, negative_prompt=old.negative_prompt, cameras=old.cameras, prior=old.prior
        )
        start = replace(start, prior_options=replace(old.prior_options, offline=picked.offline))
        start = replace(start, init_mesh=os.path.abspath(picked.path / "asset.glb"), device=old.device)
    about = "Makes the mesh of a finished run better as a mesh: its texture and where its points are."
    run = _parsed(_REFINE, rest, start, f"{about}\n\n{first.format_help()}")
    return GenerateArgs(run, picked.out, console_of(picked), picked.trust)


def texture(arguments: list[str]) -> GenerateArgs:
    """The run that `sds3d texture` is asked for: a mesh from a file painted anew, its shape kept. Raises as `edit`."""
    first = _base_parser(_TEXTURE)
    picked, rest = _with_path(first, "MODEL", f'{_TEXTURE} chair.glb "a red armchair"', arguments)
    scene = MeshConfig(train_geometry=False, repaint=True)
    if picked.path is not None and (size := texture_size(picked.path)) is not None:
        scene = replace(scene, texture_size=max(16, min(size, MAX_TEXTURE_SIZE)))
    start = replace(_initial_config(picked, rest), scene=scene)
    if picked.path is not None:
        start = replace(start, init_mesh=os.path.abspath(picked.path))
    about = "Paints a mesh (GLB, OBJ, PLY, STL) by a prompt; +Y is taken to be up and +Z the front."
    run = _parsed(_TEXTURE, rest, start, f"{about}\n\n{first.format_help()}")
    return GenerateArgs(run, picked.out, console_of(picked), picked.trust)


def _with_path(first: Parser, name: str, example: str, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What `first` reads, with a path before all else. Raises ValueError where it is missing."""
    first.add_argument("path", type=Path, metavar=name, nargs="?", help="what to start from")
    add_trust(first)
    picked, rest = first.parse_known_args(arguments)
    if picked.path is None and not {"-h", "--help"} & {*arguments}:
        raise ValueError(f"the {name} to start from is missing; for example: {example}")
    return picked, rest


def _base_parser(program: str) -> Parser:
    """Reads what is no field of a run, or decides which fields there are."""
    first = Parser(prog=program, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    about = "; ".join(f"{name}: {ready.description}" for name, ready in PRESETS.items())
    first.add_argument("--preset", metavar="NAME", default="draft", help=f"how much time it is worth ({about})")
    first.add_argument(
        "--objective",
        metavar="NAME",
        help=f"{', '.join(objective_names())}, or module:Class; its values are chosen for the embedded prior, and "
        "with any other prior the published ones (see: sds3d objectives)",
    )
    rules = "; ".join(f"{name}: {kind.summary}" for name, kind in TIMESTEP_SAMPLERS.items())
    first.add_argument("--timesteps", metavar="NAME", help=f"how noise times are drawn ({rules})".replace("%", "%%"))
    first.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; by default under runs/")
    first.add_argument(
        "--faces", type=int, metavar="N", help="most triangles of the mesh, short for --mesh-extraction.faces"
    )
    first.add_argument("--offline", action="store_true", help="never ask the hub for a model")
    first.add_argument(
        "--vram",
        type=int,
        metavar="GB",
        help="memory of the GPU: sets --prior-options.low-memory and --prior-options.max-batch for diffusers models "
        "(see: sds3d plan)",
    )
    first.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="TEXT@X,Y,Z,RADIUS",
        help="a ball of the scene with a text of its own, such as 'a mug@0.4,0,0,0.5'; for --objective regions",
    )
    add_verbosity_flags(first)
    return first


def _initial_config(picked: argparse.Namespace, rest: list[str]) -> RunConfig:
    """The run that presets and names ask for, without a prompt."""
    start = preset(picked.preset).run(_NOT_GIVEN, picked.objective, is_mini(_prior(rest)))
    # What is named anyway keeps its tuned or published values.
    if picked.timesteps is not None and timestep_sampler_class(picked.timesteps) is not type(start.timesteps):
        start = replace(start, timesteps=timestep_sampler_class(picked.timesteps)())
    if picked.faces is not None:
        start = replace(start, mesh_extraction=replace(start.mesh_extraction, faces=picked.faces))
    if picked.vram is not None and not 1 <= picked.vram <= 10_000:
        raise ValueError(f"vram is {picked.vram}; expected the gigabytes of a GPU, such as 8")
    extras = replace(start.prior_options, offline=picked.offline)
    start = replace(start, prior_options=extras if picked.vram is None else extras.for_vram(picked.vram))
    return replace(start, regions=tuple(map(_region, picked.region)))


def _region(words: str) -> Region:
    """A part from `TEXT@X,Y,Z,RADIUS`. Raises ValueError."""
    text, _, numbers = words.rpartition("@")
    try:
        x, y, z, radius = map(float, numbers.split(","))
    except ValueError:
        raise ValueError(f"the part {words!r} is no TEXT@X,Y,Z,RADIUS, such as 'a mug@0.4,0,0,0.5'") from None
    return Region(text, (x, y, z), radius)


def _prior(words: list[str]) -> str:
    """The prior that is asked for, without taking the flag away."""
    peek = Parser(prog=_GENERATE, add_help=False, allow_abbrev=False)
    peek.add_argument("--prior", default=MINI)
    name: str = peek.parse_known_args(words)[0].prior
    return name


def _parsed(program: str, words: list[str], start: RunConfig, description: str) -> RunConfig:
    """`start` with the flags among `words` applied. Raises ValueError in one line for what does not fit."""
    import tyro

    boxes = io.StringIO()
    if start.prompt == _NOT_GIVEN:
        # A run with a hole where the prompt belongs: what tyro takes for a required argument is no text.
        object.__setattr__(start, "prompt", tyro.MISSING)
    try:
        with redirect_stderr(boxes):
            return tyro.cli(
                RunConfig,
                args=words,
                default=start,
                prog=program,
                description=description,
                config=(tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ValueError(f"{_one_line(boxes.getvalue())} (see {program} --help)") from None


_PARSE_ERRORS = (
    (r"Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)", r"\1 is \2; expected a whole number"),
    (r"Error parsing (--\S+): could not convert string to float: (.*)", r"\1 is \2; expected a number"),
    (r"Error parsing (--\S+): no type matching \S+ could be instantiated from (\[.*?\])\..*", r"\1 does not take \2"),
    (r"Missing value for argument '(--\S+?)'\. Expected 1 values.*", r"\1 needs a value"),
    (r"Missing value for argument '(--\S+?)'\. Expected (\d+) values.*", r"\1 needs \2 values"),
    (r"Error parsing (?!--)[\w.]+: (.*)", r"\1"),
)
"""What tyro says of a value, as patterns -> what is said instead."""


def _reworded(text: str) -> str:
    """A message of tyro's without the names of its types."""
    for pattern, instead in _PARSE_ERRORS:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return match.expand(instead)
    return text


def _one_line(boxes: str) -> str:
    """What tyro's boxes say is wrong, without frames, rules and help."""
    # A title, what is wrong, and more, between rules; the frame is missing where the terminal has no UTF-8.
    text = re.sub(r"\x1b\[[0-9;]*m|\[/?bold\]|[│╭╮╰╯]", "", boxes)
    _, wrong, *more = [" ".join(part.split()) for part in re.split(r"[─-]{4,}", text)] + [""]
    if wrong.startswith("Missing from"):
        return 'the prompt is missing; give one such as "a teddy bear"'
    if wrong.startswith("Unrecognized"):
        if "--" not in wrong:
            return f"{wrong}; a prompt of several words needs quotes around it"
        near = re.findall(r"--[\w.-]+", more[0])[:3] if more and more[0].startswith("Perhaps") else []
        return f"{wrong}; did you mean {' or '.join(near)}?" if near else wrong
    return _reworded(wrong or " ".join(text.split()))
