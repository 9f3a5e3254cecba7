"""`sds3d models ...`: the book of models, and what is on this disk of it."""

from __future__ import annotations

from pathlib import Path

from configs.registry import unknown
from guidance.priors.diffusers.options import Extras
from sds3d.cli.arguments import Parser, add_telling, console_of, parser
from sds3d.models.download import fetched, verified
from sds3d.models.loading import folder_of, is_hub_name
from sds3d.models.registry import BOOK, table, told


def main(words: list[str]) -> int:
    """Runs one of `list`, `show`, `fetch`, `verify`; returns the exit code. Raises ValueError, OSError, ImportError."""
    p = parser("sds3d models", "Models of others that go by a short name; any folder or owner/name works too.")
    actions = p.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    add_telling(actions.add_parser("list", help="a line for each, with size, access and licence"))
    for name, what in {
        "show": "all about one",
        "fetch": "download one for later",
        "verify": "whether the files of one are whole",
    }.items():
        action = actions.add_parser(name, help=what)
        action.add_argument("model", metavar="NAME", help="short name, owner/name on the hub, or a folder")
        action.add_argument("--revision", default="", help="branch, tag or commit on the hub")
        action.add_argument("--half", action="store_true", help="weights in half precision, where there are such")
        action.add_argument("--offline", action="store_true", help="never ask the hub")
        add_telling(action)
    given = p.parse_args(words)
    console = console_of(given)
    if given.action == "list":
        console.say(table())
        return 0
    if given.action == "show":
        console.say(_shown(given.model))
        return 0
    extras = Extras(precision="half" if given.half else "auto", revision=given.revision, offline=given.offline)
    if given.action == "fetch":
        if Path(given.model).is_dir():
            raise ValueError(f"{given.model} is a folder on this disk; there is nothing to fetch")
        if given.model not in BOOK and not is_hub_name(given.model):
            raise ValueError(unknown("model", given.model, list(BOOK)))
        console.say(str(fetched(given.model, extras)))
        return 0
    lines = verified(folder_of(given.model, Extras(revision=given.revision, offline=True)))
    for line in lines:
        console.say(line)
    return 0


def _shown(name: str) -> str:
    if name in BOOK:
        return told(name, BOOK[name])
    if Path(name).is_dir() or is_hub_name(name):
        from guidance.priors.diffusers.inspection import look

        found = look(folder_of(name, Extras(offline=True)))
        return f"{name}: {found.kind} with {', '.join(found.parts)}" + (", half precision" if found.variant else "")
    raise ValueError(unknown("model", name, list(BOOK)))
