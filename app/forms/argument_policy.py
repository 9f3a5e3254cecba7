"""What visitors may say to the command line: texts, numbers and names; never a path, nor code to load."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sds3d.models.loading import EMBEDDED, FLOW, SOLID, TOY
from sds3d.models.registry import BOOK

LONGEST = 1000
"""Characters of a text."""
MOST = 400
"""Words of a command line."""
TEXTS = frozenset(("negative", "part"))
"""Flags whose value is free text."""
FILES = frozenset(
    (
        *("out", "image", "source", "model", "debias", "to", "config"),
        *("extras.lora", "extras.words", "extras.adapter", "extras.vae"),
    )
)
"""Flags that name files of the server."""
NAMED = frozenset(("prior",))
"""Flags that name something that lies in files."""
_SIGNS = ("/", "\\", ":", "~", "\0")


def checked(words: Sequence[str], texts: int, trusted: Collection[str] = ()) -> tuple[str, ...]:
    """The words, where they can harm nobody.

    Args:
        texts: how many of the first words are texts, such as the prompt.
        trusted: values that flags may have though they name files of the server.

    Raises:
        ValueError: in one line, what is not taken.
    """
    if len(words) > MOST:
        raise ValueError(f"{len(words)} words; at most {MOST} are taken")
    for word in words:
        if len(word) > LONGEST:
            raise ValueError(f"a text of {len(word)} characters; at most {LONGEST} are taken")
        if "\0" in word:
            raise ValueError("a text with a NUL character in it is not taken")
    if len(words) < texts:
        raise ValueError('the prompt is missing; give one such as "a teddy bear"')
    for text in words[:texts]:
        if text.startswith("-"):
            raise ValueError(f"a prompt does not begin with a dash: {text[:40]!r}")
        if not text.strip():
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
    flag = ""
    for word in words[texts:]:
        flag = _one(word, flag, trusted)
    return tuple(words)


def changed(words: Sequence[str], texts: int, changes: Mapping[str, str]) -> tuple[str, ...]:
    """The words with other values of flags, by their names without dashes; `prompt` is the last of the texts.

    A value of several numbers has spaces between them; an empty one takes the flag away.
    """
    front, rest = [*words[:texts]], [*words[texts:]]
    for name, value in changes.items():
        if name == "prompt":
            front[-1:] = [value]
            continue
        rest = [word for flag, word in _flagged(rest) if flag != name]
        if value.strip():
            rest += [f"--{name}={value}"] if name in TEXTS else [f"--{name}", *value.split()]
    return (*front, *rest)


def _flagged(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every word with the name of the flag that it is or belongs to."""
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag = word[2:].partition("=")[0]
        yield flag, word


def _one(word: str, flag: str, trusted: Collection[str]) -> str:
    """Looks at one word after `flag`; returns the flag that the next one belongs to."""
    if not word.startswith("--"):
        if word.startswith("-") and not word[1:2].isdigit():
            raise ValueError(f"a value does not begin with a dash: {word[:40]!r}")
        _value(flag, word, trusted)
        return flag
    name, sign, value = word[2:].partition("=")
    if not name[:1].isalnum():
        raise ValueError(f"{word[:40]!r} is no flag")
    name = name.replace("_", "-")
    if name in ("help", "json", "quiet"):
        raise ValueError(f"--{name} is for the command line only")
    if sign:
        _value(name, value, trusted)
    elif name == "out":
        raise ValueError("--out is not taken: every run has its folder in the store")
    return name


def _value(flag: str, value: str, trusted: Collection[str]) -> None:
    """Raises ValueError where the value of a flag names a file, or something to load."""
    if not flag:
        raise ValueError(f"{value[:40]!r} belongs to no flag; a prompt is one text")
    if value in trusted and flag != "out":
        return
    if flag in FILES:
        raise ValueError(f"--{flag} names a file of the server and is not taken here")
    if flag in NAMED and value not in (EMBEDDED, SOLID, FLOW, TOY, *BOOK):
        raise ValueError(f"--{flag} {value[:40]!r} is not offered here; expected one of {EMBEDDED}, {TOY}, ...")
    if flag not in TEXTS and any(sign in value for sign in _SIGNS):
        raise ValueError(f"--{flag} {value[:40]!r} looks like a path or a module; names and numbers are taken")
