"""A run as plain YAML, and back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configs.registry import (
    objective_class,
    objective_name,
    scene_class,
    scene_name,
    timestep_sampler_class,
    timestep_sampler_name,
    unknown_name_message,
)
from configs.run import RunConfig
from guidance.objectives.base import Objective
from guidance.timesteps import TimestepSampler
from renderers.scene import SceneConfig

_MAX_INT = 2**1023
"""Whole numbers below this have a float."""


def to_yaml(config: RunConfig) -> str:
    """The run as YAML text: plain values, every field written out, so that later defaults change nothing."""
    import yaml

    row = _to_plain(config)
    text: str = yaml.safe_dump(row, sort_keys=False, allow_unicode=True)
    # Line breaks of Unicode, such as U+0085, come back only where they are written as escapes.
    return text if yaml.safe_load(text) == row else yaml.safe_dump(row, sort_keys=False, allow_unicode=False)


def from_yaml(text: str, source: str = "run.yaml", trust: bool = False) -> RunConfig:
    """The run that `dump` wrote.

    Args:
        trust: import a module that the file names (`kind: module:Class`), which runs its code.

    Raises:
        ValueError: no YAML, a key that does not exist, one that is missing, or a value that does not fit.
    """
    import yaml

    try:
        row = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{source} holds no run; expected keys such as prompt and steps")
    if not trust:
        _reject_module_references(row, source)
    run = _structure(RunConfig, row, source)
    assert isinstance(run, RunConfig)
    return run


def _reject_module_references(row: Any, where: str) -> None:
    """Raises ValueError where a value says `kind: module:Class`: a file does not decide which code runs."""
    for name, value in row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ():
        if name == "kind" and isinstance(value, str) and ":" in value:
            raise ValueError(f"{where} names code to import ({value[:80]!r}); add --trust if you know whose it is")
        _reject_module_references(value, where)


def load_config(file: Path, trust: bool = False) -> RunConfig:
    """The run in a file; `trust` as in `load`. Raises OSError or ValueError."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; expected the folder of a run")
    try:
        return from_yaml(file.read_text(encoding="utf-8"), str(file), trust)
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text; expected the YAML of a run, in UTF-8") from None
    except OSError as error:
        raise OSError(f"{file} can not be read: {error.strerror}") from None


def read_fields(file: Path, names: Collection[str]) -> dict[str, Any]:
    """Plain values of the run in a file, by name; nothing else of it is read, nor is any class looked up.

    Empty where the file is missing or is no run; names that it lacks are left out.
    """
    import yaml

    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        return {}
    selected, keep = "", False
    for line in lines:
        if line.strip() and not line.startswith((" ", "-")):
            keep = line.partition(":")[0] in names
        selected += line if keep else ""
    try:
        row = yaml.safe_load(selected)
    except (yaml.YAMLError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(inner) for inner in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    kind: dict[str, str] = {}
    if isinstance(value, Objective):
        kind = {"kind": objective_name(value)}
    elif isinstance(value, TimestepSampler):
        kind = {"kind": timestep_sampler_name(value)}
    elif isinstance(value, SceneConfig):
        kind = {"kind": scene_name(value)}
    return kind | {f.name: _to_plain(getattr(value, f.name)) for f in fields(value)}


def _structure(cls: type, row: dict[str, Any], where: str) -> Any:
    """A dataclass from plain values, its nested ones too."""
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    for key in row:
        if key not in names:
            raise ValueError(f"{where}: {unknown_name_message('key', str(key), names)}")
    if missing := [f.name for f in fields(cls) if f.name not in row and (cls is RunConfig or _has_no_default(f))]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: _structure_value(hints[name], row[name], f"{where}: {name}") for name in names if name in row})


def _has_no_default(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _structure_value(hint: Any, value: Any, where: str) -> Any:
    if hint is Objective:
        name, rest = _split_kind(value, where, "an objective")
        return _structure(objective_class(name), rest, where)
    if hint is TimestepSampler:
        name, rest = _split_kind(value, where, "a timestep sampler")
        return _structure(timestep_sampler_class(name), rest, where)
    if hint is SceneConfig:
        name, rest = _split_kind(value, where, "a scene")
        return _structure(scene_class(name), rest, where)
    inner = get_args(hint)
    if get_origin(hint) is tuple and inner[1:] == (Ellipsis,):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}; expected a list")
        return tuple(_structure_value(inner[0], row, f"{where} {number}") for number, row in enumerate(value, 1))
    nested = next((choice for choice in inner if is_dataclass(choice)), None)
    if nested is not None and type(None) in inner:
        return None if value is None else _structure_value(nested, value, where)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}; expected the fields of {hint.__name__}")
        return _structure(hint, value, where)
    if not _matches_type(hint, value):
        raise ValueError(f"{where} is {value!r}; expected {_type_name(hint)}")
    return _convert(hint, value)


def _split_kind(value: Any, where: str, expected: str) -> tuple[str, dict[str, Any]]:
    """The name of a thing's kind, and its fields."""
    name = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{where} needs a kind, the name of {expected}, and its fields")
    return name, {key: inner for key, inner in value.items() if key != "kind"}


def _matches_type(hint: Any, value: Any) -> bool:
    """Whether a plain value is one of a simple type: a number, text, None, a choice, a union or a tuple of them."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return value in inner
    if get_origin(hint) is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_matches_type, inner, value))
    if inner:
        return any(_matches_type(choice, value) for choice in inner)
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < _MAX_INT)
    return isinstance(value, hint)


def _convert(hint: Any, value: Any) -> Any:
    """A value that fits, in its exact type: a whole number may stand for a float, a list for a tuple."""
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple(map(_convert, inner, value))
    if get_origin(hint) is not Literal and inner:
        return _convert(next(choice for choice in inner if _matches_type(choice, value)), value)
    return float(value) if hint is float else value


def _type_name(hint: Any) -> str:
    """A simple type in words."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, inner))
    if get_origin(hint) is tuple:
        return f"a list of {len(inner)}: {', '.join(map(_type_name, inner))}"
    if inner:
        return " or ".join(map(_type_name, inner))
    return "nothing" if hint is type(None) else str(hint.__name__)
