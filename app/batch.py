"""Many prompts at once: pasted, one a line, or a table with a column `prompt` and others that are flags."""

from __future__ import annotations

import csv
import io
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.forms.argument_policy import MAX_TEXT_CHARS, PATH_FLAGS, replace_flags, validate_args
from app.forms.form import parse_config
from app.jobs.job import LimitReached
from app.jobs.queue import Jobs

MAX_BYTES = 256 * 1024
"""Bytes of a table or of pasted prompts."""
MAX_ROWS = 100
"""Prompts at once."""
_COLUMN = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class Row:
    """One run that is asked for."""

    number: int
    """Of its line, from 1; in a table the names of the columns are line 1."""
    args: tuple[str, ...]
    """Of `sds3d generate`: the prompt, and flags."""


@dataclass(frozen=True)
class Batch:
    """What was read: rows that can be run, and one line for each that can not."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class SubmittedBatch:
    """What came of a batch."""

    name: str
    """That its jobs have in common, as `Job.batch`."""
    ids: tuple[str, ...]
    problems: tuple[str, ...]
    """One line for each row that was not taken."""


def check_args(args: Sequence[str]) -> None:
    """Raises ValueError for words that `sds3d generate` would not take."""
    parse_config(args)


def from_lines(text: str, flags: Sequence[str] = (), check: Callable[[Sequence[str]], object] = check_args) -> Batch:
    """Prompts, one a line; empty lines and those that begin with # are passed over.

    Args:
        flags: what all runs are asked with.
        check: raises ValueError for words that do not fit.

    Raises:
        ValueError: there are no prompts, or far too many.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ValueError(f"the prompts have more than {MAX_BYTES // 1024} KB, the most that is taken")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    requested = [(number, {"prompt": line}) for number, line in lines if line and not line.startswith("#")]
    return _check_rows(requested, [], flags, check)


def from_csv(content: bytes, flags: Sequence[str] = (), check: Callable[[Sequence[str]], object] = check_args) -> Batch:
    """A CSV file, with commas, semicolons or tabs, whose first line names its columns.

    One column is `prompt`; the others are flags of `sds3d generate` such as seed, preset or negative, and an empty cell
    leaves its flag out. Arguments as `from_lines`.

    Raises:
        ValueError: it is no such table.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"the table has more than {MAX_BYTES // 1024} KB, the most that is taken")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("the table is no text in UTF-8; save it as CSV (UTF-8)") from None
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max((",", ";", "\t"), key=head.count)
    try:
        # A quote that is never closed would swallow the rest of the table.
        cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"the table cannot be read: {error}") from None
    numbered = [(number, row) for number, row in enumerate(cells, 1) if any(cell.strip() for cell in row)]
    if not numbered:
        raise ValueError("the table is empty")
    columns = _parse_columns(numbered[0][1])
    requested: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    for number, row in numbered[1:]:
        if len(row) > len(columns) and any(cell.strip() for cell in row[len(columns) :]):
            problems.append(f"row {number}: {len(row)} cells, where {len(columns)} columns have names")
            continue
        found = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        requested.append((number, {name: cell for name, cell in found.items() if cell or name == "prompt"}))
    return _check_rows(requested, problems, flags, check)


def submit(jobs: Jobs, batch: Batch, owner: str) -> SubmittedBatch:
    """Puts the rows into the queue, one after another; what is not taken is told, and the rest goes on."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}"
    ids: list[str] = []
    problems: list[str] = []
    for index, row in enumerate(batch.rows):
        try:
            ids.append(jobs.submit("generate", row.args, owner, batch=name).id)
        except LimitReached as full:
            left = len(batch.rows) - index
            problems.append(f"row {row.number}{f' and {left - 1} more' if left > 1 else ''}: {full}")
            break
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
    return SubmittedBatch(name, tuple(ids), (*batch.problems, *problems))


def _parse_columns(names: Sequence[str]) -> list[str]:
    """Names of the columns. Raises ValueError."""
    columns = [name.strip().lower().removeprefix("--") for name in names]
    if "prompt" not in columns:
        raise ValueError("the first line names the columns, and one of them has to be: prompt")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"there are two columns called {name!r}")
        if not _COLUMN.fullmatch(name) or name.replace("_", "-") in PATH_FLAGS:
            raise ValueError(f"a column is called {name[:40]!r}; expected prompt, or a flag such as seed or preset")
    return columns


def _check_rows(
    requested: Sequence[tuple[int, dict[str, str]]],
    problems: Sequence[str],
    flags: Sequence[str],
    check: Callable[[Sequence[str]], object],
) -> Batch:
    """What was asked as rows, each looked at."""
    if not requested and not problems:
        raise ValueError("there are no prompts; give one a line")
    all_problems, rows = [*problems], list[Row]()
    for number, changes in requested:
        try:
            if len(rows) >= MAX_ROWS:
                raise ValueError(f"more than {MAX_ROWS} prompts; this one and those after it are left out")
            if len(changes["prompt"]) > MAX_TEXT_CHARS:
                raise ValueError(f"a prompt of {len(changes['prompt'])} characters; at most {MAX_TEXT_CHARS} are taken")
            args = validate_args(replace_flags(("", *flags), 1, changes), 1)
            check(args)
        except ValueError as error:
            all_problems.append(f"row {number}: {' '.join(str(error).split())}")
            if len(rows) >= MAX_ROWS:
                break
        else:
            rows.append(Row(number, args))
    return Batch(tuple(rows), tuple(all_problems))
