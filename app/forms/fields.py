"""The advanced fields of the page, built from the dataclasses of a run, and the flags that they become."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from configs.presets import PRESETS
from configs.registry import (
    SCENES,
    TIMESTEP_SAMPLERS,
    objective_class,
    objective_name,
    objective_names,
    scene_name,
    timestep_sampler_name,
    unknown_name_message,
)
from configs.run import RunConfig
from sds3d.cli import arguments
from sds3d.models.loading import MINI, SOLID, TOY, is_mini
from sds3d.models.registry import MODELS

FieldKind = Literal["number", "whole", "yes", "choice", "numbers"]
NONE_TEXT = "none"
"""What stands in a field whose value is None, on the page and on the command line."""
_RUN_FIELDS = ("steps", "batch_size", "num_chunks", "particles", "view_conditioning", "perp_neg")
"""Fields of a run itself that the page offers. The others are asked for elsewhere, or name files of the server."""
_PRIOR_OPTION_FIELDS = ("lora_scale", "image_size", "embedded_guidance", "precision", "max_batch", "low_memory")


@dataclass(frozen=True)
class Choice:
    """What decides which other fields there are, and their defaults. Empty: as the preset has it."""

    preset: str = "draft"
    prior: str = MINI
    objective: str = ""
    timesteps: str = ""
    scene: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for what is not among the names of the page: `module:Class` and folders are not."""
        offered = {
            "preset": list(PRESETS),
            "prior": [MINI, SOLID, TOY, *MODELS],
            "objective": ["", *objective_names()],
        }
        offered |= {"timesteps": ["", *TIMESTEP_SAMPLERS], "scene": ["", *SCENES]}
        for field_name, names in offered.items():
            if (name := getattr(self, field_name)) not in names:
                raise ValueError(unknown_name_message(field_name, str(name)[:80], [known for known in names if known]))

    def args(self) -> list[str]:
        """As flags; what the preset has anyway is left out."""
        names = {"preset": self.preset, "prior": self.prior, "objective": self.objective}
        names |= {"timesteps": self.timesteps, "scene": self.scene}
        return [word for name, value in names.items() if value for word in (f"--{name}", value)]


@dataclass(frozen=True)
class Field:
    """One value that one may change."""

    name: str
    """Its path from the run, such as `objective.scale`."""
    kind: FieldKind
    value: Any
    """The default: a number, True or False, a name, a list of numbers, or None."""
    help: str
    choices: tuple[str, ...] = ()
    length: int = 1
    """Of a list of numbers."""
    optional: bool = False
    """Whether it may be none."""

    @property
    def label(self) -> str:
        return self.name.rpartition(".")[2].replace("_", " ")

    @property
    def text(self) -> str:
        """The default as text."""
        return _to_text(self.value)

    def args(self, value: object) -> list[str]:
        """The flag that sets it to what stands on the page; nothing where that is the default.

        Raises ValueError for what is no value of its kind.
        """
        parts = self._words(value)
        if parts is None or _to_text(parts) == self.text:
            return []
        flag = self.name.replace("_", "-")
        if self.kind != "yes":
            return [f"--{flag}", *parts]
        group, dot, last = flag.rpartition(".")
        return [f"--{flag}" if parts == ["True"] else f"--{group}{dot}no-{last}"]

    def _words(self, value: object) -> list[str] | None:
        """The words of a value; None where nothing stands in the field."""
        text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value).strip()
        if len(text) > 200:
            raise ValueError(f"{self.name} is {len(text)} letters long; expected {self._expected_text()}")
        if self.kind == "yes":
            if text not in ("True", "False"):
                raise ValueError(f"{self.name} is {text!r}; expected True or False")
            return [text]
        parts = text.replace(",", " ").split()
        if not parts or (self.optional and text.lower() == NONE_TEXT):
            return [NONE_TEXT.title()] if self.optional else None
        fits = (
            text in self.choices
            if self.kind == "choice"
            else len(parts) == self.length and all(map(self._is_number, parts))
        )
        if not fits:
            raise ValueError(f"{self.name} is {text!r}; expected {self._expected_text()}")
        return [text] if self.kind == "choice" else parts

    def _is_number(self, word: str) -> bool:
        try:
            (int if self.kind == "whole" else float)(word)
        except ValueError:
            return False
        return True

    def _expected_text(self) -> str:
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        what = {"whole": "a whole number", "number": "a number", "yes": "True or False"}.get(self.kind)
        return (what or f"{self.length} numbers") + (f", or {NONE_TEXT}" if self.optional else "")


@dataclass(frozen=True)
class FieldGroup:
    """Fields of one dataclass."""

    title: str
    description: str
    fields: tuple[Field, ...]


@lru_cache(maxsize=64)
def field_groups(choice: Choice) -> tuple[FieldGroup, ...]:
    """The fields that go with a choice, and no others.

    Raises:
        ValueError: a name that does not exist.
        ImportError: a plug-in does not load.
    """
    run = base_config(choice)
    scene, sampler = scene_name(run.scene), timestep_sampler_name(run.timesteps)
    parts: list[tuple[str, str, Any, tuple[str, ...] | None]] = [
        ("The run", "", run, _RUN_FIELDS),
        (f"Objective: {objective_name(run.objective)}", "objective", run.objective, None),
        (f"Noise times: {sampler}", "timesteps", run.timesteps, None),
        (f"Scene: {scene}", "scene", run.scene, None),
        ("Cameras", "cameras", run.cameras, None),
        ("Limits of the gradient", "clipping", run.clipping, None),
        ("The mesh", "mesh_extraction", run.mesh_extraction, None),
    ]
    if run.objective.needs_critic:
        parts.insert(3, ("The critic", "critic", run.critic, None))
    if not (is_mini(choice.prior) or choice.prior == TOY):
        parts.insert(1, ("The model", "prior_options", run.prior_options, _PRIOR_OPTION_FIELDS))
    groups = (
        FieldGroup(title, _first_doc_line(value), tuple(_fields(value, name, only)))
        for title, name, value, only in parts
    )
    return tuple(group for group in groups if group.fields)


@lru_cache(maxsize=64)
def base_config(choice: Choice) -> RunConfig:
    """The run of a choice before anything is changed. Raises as `groups`."""
    return arguments.generate(["a cat", *choice.args()]).config


def choice_args(choice: Choice, overrides: Mapping[str, object]) -> list[str]:
    """The flags of a choice and of what was changed beside it, by the names of fields.

    Raises:
        ValueError: a name that does not exist, or a value that does not fit.
        ImportError: a plug-in does not load.
    """
    known = {field.name: field for group in field_groups(choice) for field in group.fields}
    args = choice.args()
    for name, value in overrides.items():
        if name not in known:
            raise ValueError(unknown_name_message("field", str(name)[:80], list(known)))
        args += known[name].args(value)
    return args


def preset_choices() -> list[tuple[str, str]]:
    """(text, name) of every preset."""
    return [(f"{name}: {ready.description}", name) for name, ready in PRESETS.items()]


def prior_choices() -> list[tuple[str, str]]:
    """(text, name) of every prior with a name."""
    own = [
        ("mini: comes with sds3d", MINI),
        ("mini-3d: knows its objects in 3D", SOLID),
        ("toy: eight flat pictures, exact", TOY),
    ]
    return own + [(f"{name}: {model.title}", name) for name, model in MODELS.items()]


def objective_choices() -> list[tuple[str, str]]:
    """(text, name) of every objective that starts from a prompt alone; those of packages that do not load are left
    out.
    """
    found = []
    for name in objective_names():
        try:
            kind = objective_class(name)
        except (ImportError, ValueError):
            continue
        if not (kind.needs_source or kind.needs_regions):
            found.append((f"{name}: {kind.info.title}" if kind.info else name, name))
    return found


def scene_names() -> list[str]:
    """Names of the kinds of scenes that start from a prompt."""
    return list(SCENES)


def timestep_sampler_choices() -> list[tuple[str, str]]:
    """(text, name) of every rule for noise times."""
    return [(f"{name}: {kind.summary}", name) for name, kind in TIMESTEP_SAMPLERS.items()]


def _fields(value: Any, prefix: str, names: Sequence[str] | None) -> list[Field]:
    """The fields of a dataclass whose types the page can show, those within it included."""
    hints, helps, found = get_type_hints(type(value)), field_docstrings(type(value)), []
    for f in fields(value):
        value_of_field, name = getattr(value, f.name), f"{prefix}.{f.name}".lstrip(".")
        if names is not None and f.name not in names:
            continue
        if is_dataclass(value_of_field):
            found += _fields(value_of_field, name, None)
        elif (made := _field(name, hints[f.name], value_of_field, helps.get(f.name, ""))) is not None:
            found.append(made)
    return found


def _field(name: str, hint: Any, value: Any, help: str) -> Field | None:
    """The field of a type; None for one that the page has no field for, such as any text."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        found = _field(name, next(part for part in inner if part is not type(None)), value, help)
        if found is None or found.kind in ("yes", "choice"):
            return None
        return Field(name, found.kind, value, help, found.choices, found.length, optional=True)
    if get_origin(hint) is Literal and all(isinstance(choice, str) for choice in inner):
        return Field(name, "choice", value, help, tuple(inner))
    if get_origin(hint) is tuple and inner and all(part in (int, float) for part in inner):
        return Field(name, "numbers", None if value is None else list(value), help, length=len(inner))
    kinds: dict[Any, FieldKind] = {bool: "yes", int: "whole", float: "number"}
    return Field(name, kinds[hint], value, help) if hint in kinds else None


def _to_text(value: Any) -> str:
    """A value as text; numbers that are equal look the same."""
    if isinstance(value, list | tuple):
        return " ".join(map(_to_text, value))
    if value is None or value == NONE_TEXT.title():
        return NONE_TEXT
    if isinstance(value, bool) or value in ("True", "False"):
        return str(value)
    try:
        return f"{float(value):.10g}"
    except (TypeError, ValueError):
        return str(value)


def _first_doc_line(value: Any) -> str:
    """The first line of a dataclass's docstring."""
    return (inspect.getdoc(type(value)) or "").partition("\n")[0]


def field_docstrings(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass, in one line; nothing for classes without a source."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        try:
            module = ast.parse(inspect.getsource(sys.modules[owner.__module__]))
        except (OSError, TypeError, KeyError, SyntaxError):
            continue
        for node in module.body:
            if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
                found |= _class_field_docstrings(node)
    return found


def _class_field_docstrings(node: ast.ClassDef) -> dict[str, str]:
    """Docstrings after the fields of a class."""
    found = {}
    for before, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[before.target.id] = " ".join(after.value.value.split())
    return found
