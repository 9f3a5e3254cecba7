"""Schemas of the page's API: the type of each value that a program may send.

Every mistake of a request becomes a part of one line; nothing is converted, so that a list never becomes a text.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

Number = StrictInt | StrictFloat
Text = Annotated[StrictStr, Field(max_length=4000)]
Name = Annotated[StrictStr, Field(max_length=200)]
Value = StrictBool | StrictInt | StrictFloat | Name | None | list[StrictInt | StrictFloat | Name]
_EXPECTED = {
    "string_type": "text",
    "int_type": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "null",
    "list_type": "a list",
    "dict_type": "an object",
}
MAX_REPORTED_ERRORS = 5
"""Mistakes that an answer lists."""


class Request(BaseModel):
    """A request in which only the declared names are allowed, with values of exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class FormRequest(Request):
    """What a run is asked with."""

    prompt: Text = ""
    negative_prompt: Text | None = None
    seed: Number | None = None
    minutes: Number | Name | None = None
    values: dict[Name, Value] | None = None
    preset: Name | None = None
    prior: Name | None = None
    objective: Name | None = None
    scene: Name | None = None
    timesteps: Name | None = None


class RunRequest(Request):
    """The id of a run."""

    run: Name


class CompareRequest(Request):
    """A comparison of objectives."""

    prompt: Text
    objectives: list[Name]
    seeds: Number
    minutes: Number | Name


class BatchRequest(Request):
    """Prompts, one a line."""

    prompts: Annotated[StrictStr, Field(max_length=1_000_000)]


class SearchRequest(Request):
    """A page of the gallery."""

    search: Name
    page: Number


class ExportRequest(Request):
    """A file of a run."""

    run: Name
    name: Name


class EstimateRequest(Request):
    """Whether an estimate may take some steps."""

    measure: StrictBool


def validated(kind: type[Request], values: Any) -> dict[str, Any]:
    """The values of a request, by name.

    Raises:
        ValueError: in one line, each mistake with its place, what was sent and what is expected.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected an object with {', '.join(kind.model_fields)}, not {_shorten(values)}")
    try:
        return kind.model_validate(values).model_dump()
    except ValidationError as error:
        lines = _error_lines(error)
    more = [f"and {len(lines) - MAX_REPORTED_ERRORS} more"] if len(lines) > MAX_REPORTED_ERRORS else []
    raise ValueError("; ".join(lines[:MAX_REPORTED_ERRORS] + more))


def _error_lines(error: ValidationError) -> list[str]:
    """One text for each place of a mistake; the types that a place may have are named together."""
    found: dict[str, str] = {}
    expected: dict[str, dict[str, None]] = {}
    for row in error.errors(include_url=False):
        # The last part of a place in a union is the name of a type that was tried.
        place = ".".join(str(part) for part in row["loc"] if not _is_type(str(part)))[:80]
        if row["type"] == "extra_forbidden":
            found[place] = f"{place!r} is not taken"
        elif row["type"] == "missing":
            found[place] = f"{place} is missing"
        elif row["type"].endswith("too_long"):
            found[place] = f"{place} is too long; expected at most {row['ctx']['max_length']} characters"
        else:
            expected.setdefault(place, {})[_EXPECTED.get(row["type"], "another value")] = None
            found[place] = f"{place} is {_shorten(row['input'])}; expected {' or '.join(expected[place])}"
    return list(found.values())


def _is_type(part: str) -> bool:
    return "[" in part or part in {"int", "float", "str", "bool", "none"}


def _shorten(value: object) -> str:
    """A value in a few characters."""
    text = " ".join(repr(value).split())
    return f"{text[:60]}..." if len(text) > 60 else text
