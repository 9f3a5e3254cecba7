"""Command-line arguments: a run's dataclasses are its flags, their docstrings the help."""

from __future__ import annotations

import argparse
import io
import re
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from configs.catalog import objective_class, objective_names
from configs.presets import PRESETS, preset
from configs.run import RunConfig
from guidance.objective import Objective
from sds3d.console import Console, Mode


@dataclass(frozen=True)
class Asked:
    """What `sds3d generate` was asked."""

    run: RunConfig
    out: Path | None
    console: Console


_GENERATE = "sds3d generate"
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


def add_telling(flags: argparse.ArgumentParser) -> None:
    """The flags that say how much is told."""
    flags.add_argument("--quiet", action="store_true", help="tell nothing but errors")
    flags.add_argument("--json", action="store_true", help="tell everything as JSON, one object a line")


def console_of(flags: argparse.Namespace) -> Console:
    """The console that `add_telling` asks for."""
    mode: Mode = "json" if flags.json else "quiet" if flags.quiet else "live"
    return Console(mode)


def generate(arguments: list[str]) -> Asked:
    """The run that `sds3d generate` is asked for.

    The preset and the objective are read first, for they decide which other flags there are and their defaults.

    Raises:
        ValueError: a name that does not exist, or a value that does not fit.
    """
    first = Parser(prog=_GENERATE, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    about = "; ".join(f"{name}: {ready.purpose}" for name, ready in PRESETS.items())
    first.add_argument("--preset", metavar="NAME", default="draft", help=f"how much time it is worth ({about})")
    first.add_argument("--objective", metavar="NAME", help=f"{', '.join(objective_names())}, or module:Class")
    first.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; by default under runs/")
    first.add_argument("--faces", type=int, metavar="N", help="most triangles of the mesh, short for --mesh.faces")
    add_telling(first)
    picked, rest = first.parse_known_args(arguments)
    start = preset(picked.preset).run(_NOT_GIVEN)
    # A preset's own objective keeps the preset's values.
    if picked.objective and objective_class(picked.objective) is not type(start.objective):
        start = replace(start, objective=_plain(picked.objective))
    if picked.faces is not None:
        start = replace(start, mesh=replace(start.mesh, faces=picked.faces))
    run = _parsed(rest, start, f"Turns a prompt into a textured mesh.\n\n{first.format_help()}")
    return Asked(run, picked.out, console_of(picked))


def _plain(name: str) -> Objective:
    """The objective of that name with its default values."""
    kind = objective_class(name)
    try:
        return kind()
    except TypeError as error:
        raise ValueError(f"the objective {name} needs a default for each of its fields: {error}") from None


def _parsed(words: list[str], start: RunConfig, description: str) -> RunConfig:
    """`start` with the flags among `words` applied. Raises ValueError in one line for what does not fit."""
    import tyro

    boxes = io.StringIO()
    # A run with a hole where the prompt belongs: what tyro takes for a required argument is no text.
    object.__setattr__(start, "prompt", tyro.MISSING)
    try:
        with redirect_stderr(boxes):
            return tyro.cli(
                RunConfig,
                args=words,
                default=start,
                prog=_GENERATE,
                description=description,
                config=(tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ValueError(f"{_one_line(boxes.getvalue())} (see {_GENERATE} --help)") from None


def _one_line(boxes: str) -> str:
    """What tyro's boxes say is wrong, without frames, rules and help."""
    # A title, what is wrong, and more, between rules; the frame is missing where the terminal has no UTF-8.
    text = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", boxes)
    _, wrong, *more = [" ".join(part.split()) for part in re.split(r"[─-]{4,}", text)] + [""]
    if wrong.startswith("Missing from"):
        return 'the prompt is missing; give one such as "a teddy bear"'
    if wrong.startswith("Unrecognized"):
        if "--" not in wrong:
            return f"{wrong}; a prompt of several words needs quotes around it"
        near = re.findall(r"--[\w.-]+", more[0])[:3] if more and more[0].startswith("Perhaps") else []
        return f"{wrong}; did you mean {' or '.join(near)}?" if near else wrong
    return wrong or " ".join(text.split())
