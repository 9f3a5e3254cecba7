"""The command line: `sds3d COMMAND ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

from sds3d.console import one_line

COMMANDS = {
    "generate": "a prompt to a finished asset",
    "batch": "an asset for every line of a file, several at once",
    "edit": "a finished asset changed to what another prompt says",
    "refine": "the mesh of a finished run made better as a mesh",
    "texture": "somebody's mesh painted by a prompt",
    "resume": "goes on with a run that was stopped",
    "export": "a run as a file that another program opens: glTF, OBJ, USD, 3MF, STL, splats, pictures",
    "check": "what a mesh file holds, and what is wrong with it",
    "reproduce": "the run that a file came from, once more",
    "compare": "objectives side by side on one prompt, as a table and a page",
    "objectives": "what they cost, need and are good for, as a table",
    "doctor": "what is usable on this machine, and how to get the rest",
    "plan": "time and memory of a run, measured before it is made",
    "models": "models of others: list, show, fetch, verify",
    "prior": "the embedded prior: words, sample, evaluate, corpus, train, judge, ship",
}
"""Every command and what it is for."""
ABOVE = {"app": "the page: prompts, previews, assets in 3D, comparisons, a gallery, in a browser"}
"""What our own commands above this package are for."""
GROUP = "sds3d.commands"
"""Entry points of commands that stand above this package, or come from others; looked up only when they are needed."""


def help_text() -> str:
    """All commands, those of other packages included."""
    further = sorted(point.name for point in entry_points(group=GROUP) if point.name not in COMMANDS)
    told = COMMANDS | {name: ABOVE.get(name, "from another package") for name in further}
    rows = "\n".join(f"  {name:12}{what}" for name, what in told.items())
    example = 'For example: sds3d generate "a teddy bear". Every command explains itself with --help.'
    return f"usage: sds3d COMMAND ...\n\n{rows}\n\n{example}\n"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code. Mistakes of the user end in one line and code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
    except BrokenPipeError:
        # Whoever read the output has enough of it; what is left in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"sds3d: {one_line(error)}\n")
        return 2


def _run(given: list[str]) -> int:
    """Runs one command; returns the exit code."""
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
        return 0 if given else 2
    if given[0] == "--version":
        from sds3d.runs.provenance import versions

        sys.stdout.write(versions()["sds3d"] + "\n")
        return 0
    return _command(given[0])(given[1:])


def _command(name: str) -> Callable[[list[str]], int]:
    """The function behind a command, imported only when it is asked for."""
    if name not in COMMANDS:
        from configs.registry import unknown_name_message

        above = {point.name: point for point in entry_points(group=GROUP)}
        if name not in above:
            raise ValueError(unknown_name_message("command", name, [*COMMANDS, *above]))
        loaded: Callable[[list[str]], int] = above[name].load()
        return loaded
    from sds3d.cli import commands

    found: Callable[[list[str]], int] = getattr(commands, name)
    return found


if __name__ == "__main__":
    sys.exit(main())
