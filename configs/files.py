"""A run as plain YAML, and back."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configs.catalog import objective_class, objective_name, unknown
from configs.run import RunConfig
from guidance.objective import Objective


def dump(config: RunConfig) -> str:
    """The run as YAML text: plain values, every field written out, so that later defaults change nothing."""
    import yaml

    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def load(text: str, source: str = "run.yaml") -> RunConfig:
    """The run that `dump` wrote.

    Raises:
        ValueError: no YAML, a key that does not exist, one that is missing, or a value that does not fit.
    """
    import yaml

    try:
        row = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{source} holds no run; expected keys such as prompt and steps")
    run = _typed(RunConfig, row, source)
    assert isinstance(run, RunConfig)
    return run


def read(file: Path) -> RunConfig:
    """The run in a file. Raises FileNotFoundError or ValueError."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; expected the folder of a run")
    return load(file.read_text(encoding="utf-8"), str(file))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": objective_name(value)} if isinstance(value, Objective) else {}
        return kind | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _typed(kind: type, row: dict[str, Any], where: str) -> Any:
    """A dataclass from plain values, its nested ones too."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    for key in row:
        if key not in names:
            raise ValueError(f"{where}: {unknown('key', str(key), names)}")
    missing = [name for name in names if name not in row]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**{name: _value(hints[name], row[name], f"{where}: {name}") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Objective:
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise ValueError(f"{where} needs a kind, the name of an objective")
        return _typed(objective_class(value["kind"]), {k: v for k, v in value.items() if k != "kind"}, where)
    if is_dataclass(hint):
        assert isinstance(hint, type)
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {value!r}; expected the fields of {hint.__name__}")
        return _typed(hint, value, where)
    if not _fits(hint, value):
        raise ValueError(f"{where} is {value!r}; expected {_told(hint)}")
    return _converted(hint, value)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a plain value is one of a simple type: a number, text, None, a choice, a union or a tuple of them."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return value in inner
    if get_origin(hint) is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_fits, inner, value))
    if inner:
        return any(_fits(choice, value) for choice in inner)
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    return isinstance(value, (int, float)) if hint is float else isinstance(value, hint)


def _converted(hint: Any, value: Any) -> Any:
    """A value that fits, in its exact type: a whole number may stand for a float, a list for a tuple."""
    inner = get_args(hint)
    if get_origin(hint) is tuple:
        return tuple(map(_converted, inner, value))
    if get_origin(hint) is not Literal and inner:
        return _converted(next(choice for choice in inner if _fits(choice, value)), value)
    return float(value) if hint is float else value


def _told(hint: Any) -> str:
    """A simple type in words."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, inner))
    if get_origin(hint) is tuple:
        return f"a list of {len(inner)}: {', '.join(map(_told, inner))}"
    if inner:
        return " or ".join(map(_told, inner))
    return "nothing" if hint is type(None) else str(hint.__name__)
