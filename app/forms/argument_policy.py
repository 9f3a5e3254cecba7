"""What visitors may say to the command line: texts, numbers and names; never a path, nor code to load."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sds3d.models.loading import MINI, MINI_FLOW, SOLID, TOY
from sds3d.models.registry import MODELS

MAX_TEXT_CHARS = 1000
"""Characters of a text."""
MAX_ARGS = 400
"""Words of a command line."""
FREE_TEXT_FLAGS = frozenset(("negative-prompt", "region"))
"""Flags whose value is free text."""
PATH_FLAGS = frozenset(
    (
        *("out", "image-prompt", "source-run", "init-mesh", "debias-model", "to", "config"),
        *("prior-options.lora", "prior-options.textual-inversion", "prior-options.ip-adapter", "prior-options.vae"),
    )
)
"""Flags that name files of the server."""
REGISTRY_FLAGS = frozenset(("prior",))
"""Flags that name something that lies in files."""
_PATH_SIGNS = ("/", "\\", ":", "~", "\0")


def validate_args(args: Sequence[str], num_texts: int, trusted: Collection[str] = ()) -> tuple[str, ...]:
    """The words, where they can harm nobody.

    Args:
        num_texts: how many of the first words are texts, such as the prompt.
        trusted: values that flags may have though they name files of the server.

    Raises:
        ValueError: in one line, what is not taken.
    """
    if len(args) > MAX_ARGS:
        raise ValueError(f"{len(args)} words; at most {MAX_ARGS} are taken")
    for word in args:
        if len(word) > MAX_TEXT_CHARS:
            raise ValueError(f"a text of {len(word)} characters; at most {MAX_TEXT_CHARS} are taken")
        if "\0" in word:
            raise ValueError("a text with a NUL character in it is not taken")
    if len(args) < num_texts:
        raise ValueError('the prompt is missing; give one such as "a teddy bear"')
    for text in args[:num_texts]:
        if text.startswith("-"):
            raise ValueError(f"a prompt does not begin with a dash: {text[:40]!r}")
        if not text.strip():
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
    flag = ""
    for word in args[num_texts:]:
        flag = _validate_arg(word, flag, trusted)
    return tuple(args)


def replace_flags(args: Sequence[str], num_texts: int, changes: Mapping[str, str]) -> tuple[str, ...]:
    """The words with other values of flags, by their names without dashes; `prompt` is the last of the texts.

    A value of several numbers has spaces between them; an empty one takes the flag away.
    """
    front, rest = [*args[:num_texts]], [*args[num_texts:]]
    for name, value in changes.items():
        if name == "prompt":
            front[-1:] = [value]
            continue
        name = name.replace("_", "-")
        rest = [word for flag, word in _with_flags(rest) if flag.replace("_", "-") != name]
        if value.strip():
            rest += [f"--{name}={value}"] if name in FREE_TEXT_FLAGS else [f"--{name}", *value.split()]
    return (*front, *rest)


def _with_flags(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every word with the name of the flag that it is or belongs to."""
    flag = ""
    for word in args:
        if word.startswith("--"):
            flag = word[2:].partition("=")[0]
        yield flag, word


def _validate_arg(word: str, flag: str, trusted: Collection[str]) -> str:
    """Looks at one word after `flag`; returns the flag that the next one belongs to."""
    if not word.startswith("--"):
        if word.startswith("-") and not word[1:2].isdigit():
            raise ValueError(f"a value does not begin with a dash: {word[:40]!r}")
        _validate_value(flag, word, trusted)
        return flag
    name, sign, value = word[2:].partition("=")
    if not name[:1].isalnum():
        raise ValueError(f"{word[:40]!r} is no flag")
    name = name.replace("_", "-")
    if name in ("help", "json", "quiet"):
        raise ValueError(f"--{name} is for the command line only")
    if sign:
        _validate_value(name, value, trusted)
    elif name == "out":
        raise ValueError("--out is not taken: every run has its folder in the store")
    return name


def _validate_value(flag: str, value: str, trusted: Collection[str]) -> None:
    """Raises ValueError where the value of a flag names a file, or something to load."""
    if not flag:
        raise ValueError(f"{value[:40]!r} belongs to no flag; a prompt is one text")
    if value in trusted and flag != "out":
        return
    if flag in PATH_FLAGS:
        raise ValueError(f"--{flag} names a file of the server and is not taken here")
    if flag in REGISTRY_FLAGS and value not in (MINI, SOLID, MINI_FLOW, TOY, *MODELS):
        raise ValueError(f"--{flag} {value[:40]!r} is not offered here; expected one of {MINI}, {TOY}, ...")
    if flag not in FREE_TEXT_FLAGS and any(sign in value for sign in _PATH_SIGNS):
        raise ValueError(f"--{flag} {value[:40]!r} looks like a path or a module; names and numbers are taken")
