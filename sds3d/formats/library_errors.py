"""Errors of file readers in words for people."""

from __future__ import annotations

import stat
from pathlib import Path

MAX_BYTES = 2 * 2**30
"""Bytes of a file that are read at all."""
_OURS = ("sds3d", "renderers")


def refuse_unlike_a_file(path: Path, most: int = MAX_BYTES) -> None:
    """Raises an error for a path that is not a file of 1 to `most` bytes, before anything waits for its content.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a folder, a pipe or a device, empty, or too large.
    """
    try:
        about = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise ValueError(f"{path.name} is {kind}; expected a file")
    if not 0 < about.st_size <= most:
        raise ValueError(f"{path.name} has {about.st_size:,} bytes; expected up to {most:,}, and not 0")


def refused(path: Path, error: Exception) -> ValueError:
    """The error to raise where a reader failed on a file: our own words, or that the file is damaged.

    Libraries fail on broken files in every way there is, with words that only help those who wrote them.
    """
    words = " ".join(str(error).split())
    if isinstance(error, ValueError) and _raised_by_us(error) and words:
        if words.startswith(path.name):
            return ValueError(words)
        return ValueError(f"{path.name} cannot be read as {path.suffix[1:].upper()}: {words[:200]}")
    kind = type(error).__name__
    return ValueError(f"{path.name} cannot be read as {path.suffix[1:].upper()}: it is damaged or cut short ({kind})")


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    # NumPy and struct raise inside our frames, too; their words are theirs.
    return code in _OURS and trace.tb_lasti >= 0 and _is_raise(trace.tb_frame.f_code.co_code, trace.tb_lasti)


def _is_raise(code: bytes, offset: int) -> bool:
    import dis

    return dis.opname[code[offset]] in ("RAISE_VARARGS", "RERAISE")
