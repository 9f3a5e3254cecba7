"""`sds3d models ...`: the book of models, and what is on this disk of it."""

from __future__ import annotations

from pathlib import Path

from configs.registry import unknown_name_message
from guidance.priors.diffusers.options import PriorOptions
from sds3d.cli.arguments import Parser, add_verbosity_flags, console_of, parser
from sds3d.models.download import download, verify
from sds3d.models.loading import folder_of, is_hub_name
from sds3d.models.registry import MODELS, describe, table


def main(words: list[str]) -> int:
    """Runs one of `list`, `show`, `fetch`, `verify`; returns the exit code. Raises ValueError, OSError, ImportError."""
    p = parser("sds3d models", "Models of others that go by a short name; any folder or owner/name works too.")
    actions = p.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    add_verbosity_flags(actions.add_parser("list", help="a line for each, with size, access and licence"))
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
        add_verbosity_flags(action)
    given = p.parse_args(words)
    console = console_of(given)
    if given.action == "list":
        console.log(table())
        return 0
    if given.action == "show":
        console.log(_shown(given.model))
        return 0
    extras = PriorOptions(precision="half" if given.half else "auto", revision=given.revision, offline=given.offline)
    if given.action == "fetch":
        if Path(given.model).is_dir():
            raise ValueError(f"{given.model} is a folder on this disk; there is nothing to fetch")
        if given.model not in MODELS and not is_hub_name(given.model):
            raise ValueError(unknown_name_message("model", given.model, list(MODELS)))
        console.log(str(download(given.model, extras)))
        return 0
    lines = verify(folder_of(given.model, PriorOptions(revision=given.revision, offline=True)))
    for line in lines:
        console.log(line)
    return 0


def _shown(name: str) -> str:
    if name in MODELS:
        return describe(name, MODELS[name])
    if Path(name).is_dir() or is_hub_name(name):
        from guidance.priors.diffusers.inspection import inspect_folder

        found = inspect_folder(folder_of(name, PriorOptions(offline=True)))
        return f"{name}: {found.pipeline_class} with {', '.join(found.parts)}" + (
            ", half precision" if found.variant else ""
        )
    raise ValueError(unknown_name_message("model", name, list(MODELS)))
