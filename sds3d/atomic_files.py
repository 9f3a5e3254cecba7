"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_alone = threading.Lock()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A new empty file beside `path`, with the same ending, that takes its name when the block ends well.

    After an error nothing is left of it and what stood at `path` before still stands. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file name was expected")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        os.replace(draft, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say which file
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Puts `content` at `path`, whole or not at all."""
    with atomic_write(path) as draft:
        draft.write_bytes(content)


def _umask() -> int:
    """The permissions that new files of this process lack (reading them means setting them for a moment)."""
    with _alone:  # or two threads would give each other's moment back
        mask = os.umask(0o022)
        os.umask(mask)
    return mask
