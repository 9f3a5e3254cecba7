"""Errors of file readers in words for people."""

from __future__ import annotations

from pathlib import Path

_OURS = ("sds3d", "renderers")


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
