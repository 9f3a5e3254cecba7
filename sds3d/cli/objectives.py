"""`sds3d objectives`: what there is to choose from."""

from __future__ import annotations

import json
from dataclasses import dataclass

from configs.registry import objective_class, objective_names
from guidance.objectives.base import Objective
from sds3d.cli.arguments import parser
from sds3d.console import Console

NEEDS = {
    "needs_critic": "critic",
    "needs_discriminator": "discriminator",
    "needs_prior_stages": "stages of the prior",
    "needs_source": "scene to edit",
    "needs_regions": "texts of parts",
    "needs_flow_prior": "flow prior",
    "needs_undistilled_prior": "undistilled prior",
}
"""What an objective can need beside a prior and a prompt, in words."""
_UNTOLD = "-"
"""Stands for what an objective does not say of itself."""


@dataclass(frozen=True)
class Row:
    """An objective as a row of the table; None and nothing for what it does not say."""

    name: str
    title: str
    forward_passes: tuple[int, int] | None = None
    """Fewest and most of the prior, for a view in a step."""
    critic_passes: int | None = None
    """Answers of the critic."""
    needs: tuple[str, ...] = ()
    guidance_scale: str = ""
    timestep_range: str = ""
    summary: str = ""
    reference: str = ""


def objectives(words: list[str]) -> int:
    """Shows the table of all objectives, or of those that are named."""
    p = parser("sds3d objectives", "Objectives to choose from: what they cost, need and are good for.")
    p.add_argument("names", nargs="*", metavar="NAME", help="names, or module:Class; by default all that are installed")
    p.add_argument("--json", action="store_true", help="as JSON")
    given = p.parse_args(words)
    rows = [row(name, objective_class(name)) for name in given.names] or [_installed(n) for n in objective_names()]
    Console().log(json.dumps([vars(r) for r in rows], indent=1) if given.json else table(rows))
    return 0


def row(name: str, kind: type[Objective]) -> Row:
    """What an objective says of itself."""
    needs = tuple(what for flag, what in NEEDS.items() if getattr(kind, flag))
    about = kind.info
    if about is None:
        return Row(name, _UNTOLD, needs=needs)
    facts = (about.guidance_scale, about.timestep_range, about.summary, about.reference)
    return Row(name, about.title, about.forward_passes, about.critic_passes, needs, *facts)


def _installed(name: str) -> Row:
    """The row of a name that something is installed under, which may not load."""
    try:
        return row(name, objective_class(name))
    except (ImportError, ValueError) as error:
        return Row(name, "does not load", reference=" ".join(str(error).split()))


def table(rows: list[Row]) -> str:
    """Rows under one heading, each with its facts in words below."""
    cells = [("name", "passes", "critic", "title", "needs"), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    said = [lines[0]]
    for line, r in zip(lines[1:], rows, strict=True):
        said.append(line)
        facts = {
            "guidance scale": r.guidance_scale,
            "timesteps": r.timestep_range,
            "good for": r.summary,
            "source": r.reference,
        }
        said += [f"    {what}: {fact}" for what, fact in facts.items() if fact]
    return "\n".join(
        [
            *said,
            "",
            "passes: forward passes of the prior for a view in a step; critic: those of the trained critic.",
            "guidance scale and timesteps: as published, as uncond + scale * (text - uncond) and in fractions of the "
            "schedule; with the embedded prior a run takes values chosen for it.",
        ]
    )


def _cells(r: Row) -> tuple[str, str, str, str, str]:
    """The short facts of a row as text."""
    fewest, most = r.forward_passes or (_UNTOLD, _UNTOLD)
    answers = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    critic = _UNTOLD if r.critic_passes is None else str(r.critic_passes)
    return r.name, answers, critic, r.title, ", ".join(r.needs) or "nothing"
