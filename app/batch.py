"""Many prompts at once: pasted, one a line, or a table with a column `prompt` and others that are flags."""

from __future__ import annotations

import csv
import io
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.forms.argument_policy import FILES, LONGEST, changed, checked
from app.forms.form import parse
from app.jobs.job import Full
from app.jobs.queue import Jobs

LARGEST = 256 * 1024
"""Bytes of a table or of pasted prompts."""
MOST = 100
"""Prompts at once."""
_COLUMN = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class Row:
    """One run that is asked for."""

    number: int
    """Of its line, from 1; in a table the names of the columns are line 1."""
    words: tuple[str, ...]
    """Of `sds3d generate`: the prompt, and flags."""


@dataclass(frozen=True)
class Batch:
    """What was read: rows that can be run, and one line for each that can not."""

    rows: tuple[Row, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """What came of a batch."""

    name: str
    """That its jobs have in common, as `Job.batch`."""
    ids: tuple[str, ...]
    wrong: tuple[str, ...]
    """One line for each row that was not taken."""


def fits(words: Sequence[str]) -> None:
    """Raises ValueError for words that `sds3d generate` would not take."""
    parse(words)


def pasted(text: str, flags: Sequence[str] = (), check: Callable[[Sequence[str]], object] = fits) -> Batch:
    """Prompts, one a line; empty lines and those that begin with # are passed over.

    Args:
        flags: what all runs are asked with.
        check: raises ValueError for words that do not fit.

    Raises:
        ValueError: there are no prompts, or far too many.
    """
    if len(text.encode("utf-8", "replace")) > LARGEST:
        raise ValueError(f"the prompts have more than {LARGEST // 1024} KB, the most that is taken")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    asked = [(number, {"prompt": line}) for number, line in lines if line and not line.startswith("#")]
    return _batch(asked, [], flags, check)


def table(content: bytes, flags: Sequence[str] = (), check: Callable[[Sequence[str]], object] = fits) -> Batch:
    """A CSV file, with commas, semicolons or tabs, whose first line names its columns.

    One column is `prompt`; the others are flags of `sds3d generate` such as seed, preset or negative, and an empty cell
    leaves its flag out. Arguments as `pasted`.

    Raises:
        ValueError: it is no such table.
    """
    if len(content) > LARGEST:
        raise ValueError(f"the table has more than {LARGEST // 1024} KB, the most that is taken")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the table is no text in UTF-8; save it as CSV (UTF-8)") from None
    head = next((line for line in text.splitlines() if line.strip()), "")
    mark = max((",", ";", "\t"), key=head.count)
    try:
        # A quote that is never closed would swallow the rest of the table.
        cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except csv.Error as error:
        raise ValueError(f"the table cannot be read: {error}") from None
    numbered = [(number, row) for number, row in enumerate(cells, 1) if any(cell.strip() for cell in row)]
    if not numbered:
        raise ValueError("the table is empty")
    columns = _columns(numbered[0][1])
    asked: list[tuple[int, dict[str, str]]] = []
    wrong: list[str] = []
    for number, row in numbered[1:]:
        if len(row) > len(columns) and any(cell.strip() for cell in row[len(columns) :]):
            wrong.append(f"row {number}: {len(row)} cells, where {len(columns)} columns have names")
            continue
        found = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        asked.append((number, {name: cell for name, cell in found.items() if cell or name == "prompt"}))
    return _batch(asked, wrong, flags, check)


def submitted(jobs: Jobs, batch: Batch, owner: str) -> Sent:
    """Puts the rows into the queue, one after another; what is not taken is told, and the rest goes on."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}"
    ids: list[str] = []
    wrong: list[str] = []
    for place, row in enumerate(batch.rows):
        try:
            ids.append(jobs.submit("generate", row.words, owner, batch=name).id)
        except Full as full:
            left = len(batch.rows) - place
            wrong.append(f"row {row.number}{f' and {left - 1} more' if left > 1 else ''}: {full}")
            break
        except ValueError as error:
            wrong.append(f"row {row.number}: {error}")
    return Sent(name, tuple(ids), (*batch.wrong, *wrong))


def _columns(names: Sequence[str]) -> list[str]:
    """Names of the columns. Raises ValueError."""
    columns = [name.strip().lower().removeprefix("--") for name in names]
    if "prompt" not in columns:
        raise ValueError("the first line names the columns, and one of them has to be: prompt")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"there are two columns called {name!r}")
        if not _COLUMN.fullmatch(name) or name in FILES:
            raise ValueError(f"a column is called {name[:40]!r}; expected prompt, or a flag such as seed or preset")
    return columns


def _batch(
    asked: Sequence[tuple[int, dict[str, str]]],
    wrong: Sequence[str],
    flags: Sequence[str],
    check: Callable[[Sequence[str]], object],
) -> Batch:
    """What was asked as rows, each looked at."""
    if not asked and not wrong:
        raise ValueError("there are no prompts; give one a line")
    told, rows = [*wrong], list[Row]()
    for number, changes in asked:
        try:
            if len(rows) >= MOST:
                raise ValueError(f"more than {MOST} prompts; this one and those after it are left out")
            if len(changes["prompt"]) > LONGEST:
                raise ValueError(f"a prompt of {len(changes['prompt'])} characters; at most {LONGEST} are taken")
            words = checked(changed(("", *flags), 1, changes), 1)
            check(words)
        except ValueError as error:
            told.append(f"row {number}: {' '.join(str(error).split())}")
            if len(rows) >= MOST:
                break
        else:
            rows.append(Row(number, words))
    return Batch(tuple(rows), tuple(told))
