"""What a visitor fills in for one run, and the words of the command line that it becomes, there and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.forms.argument_policy import validate_args
from app.forms.fields import Choice, choice_args, field_groups
from configs.run import RunConfig
from configs.serialization import read_fields
from sds3d.cli import arguments
from sds3d.models.download import cached
from sds3d.models.loading import is_mini, mini_vocabulary
from sds3d.models.registry import MODELS

MAX_PROMPT_CHARS = 300
"""Characters of a prompt."""


@dataclass(frozen=True)
class Form:
    """What a visitor fills in for one run."""

    prompt: str
    choice: Choice = field(default_factory=Choice)
    negative: str = ""
    seed: int = 0
    minutes: float | None = None
    """Time budget; the steps are chosen to fit."""
    overrides: Mapping[str, object] = field(default_factory=dict)
    """Values of advanced fields, by name."""

    def args(self) -> list[str]:
        """As the words of `sds3d generate`, without the budget.

        Raises:
            ValueError: in one line, what does not fit; for the embedded prior a prompt that it cannot read too.
            ImportError: a plug-in does not load.
        """
        prompt = parse_line("prompt", self.prompt)
        if not prompt:
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
        args = [prompt, *self._flag_args()]
        parse_config(args)
        if is_mini(self.choice.prior):
            prompt_warning(prompt)
        return args

    def config(self) -> RunConfig:
        """The run that the words ask for. Raises as `words`."""
        return parse_config(self.args())

    def _flag_args(self) -> list[str]:
        args = choice_args(self.choice, self.overrides)
        if negative := parse_line("negative prompt", self.negative):
            args += [f"--negative-prompt={negative}"]
        return [*args, "--seed", str(parse_int("seed", self.seed))]


def parse_config(args: Sequence[str]) -> RunConfig:
    """The run that words of a visitor ask for; none of them reaches the parser of flags unchecked.

    Raises:
        ValueError: in one line, what does not fit.
        ImportError: a plug-in does not load.
    """
    try:
        config = arguments.generate([*validate_args(args, 1)]).config
    except SystemExit:
        raise ValueError("the values ask for the help of the command line; see: sds3d generate --help") from None
    if config.prior in MODELS and not any(
        cached(source, config.prior_options) for source in MODELS[config.prior].sources
    ):
        raise ValueError(
            f"the prior {config.prior} is not on this machine; get it with: sds3d models fetch {config.prior}"
        )
    return config


def parse_args(args: Sequence[str]) -> Form:
    """The form that gave these words of `sds3d generate`. Raises ValueError."""
    values = dict(flag_values(args[1:]))
    choice = Choice(**{name: values.pop(name) for name in Choice.__dataclass_fields__ if name in values})
    known = {f.name.replace("_", "-"): f.name for group in field_groups(choice) for f in group.fields}
    overrides = {known[flag]: value for flag, value in values.items() if flag in known}
    return Form(args[0], choice, values.get("negative-prompt", ""), int(values.get("seed", 0)), None, overrides)


def form_from_run(folder: Path) -> Form:
    """The form that asks for what a run of the command line was asked, as far as the page has fields for it.

    Raises ValueError for a prior or an objective that the page does not offer.
    """
    config = read_fields(folder / "run.yaml", RunConfig.__dataclass_fields__)
    kinds = {name: (config.get(name) or {}).get("kind", "") for name in ("objective", "timesteps", "scene")}
    choice = Choice(prior=str(config.get("prior", "mini")), **kinds)
    overrides: dict[str, object] = {}
    for f in (f for group in field_groups(choice) for f in group.fields):
        value: Any = config
        for part in f.name.split("."):
            value = value.get(part, f.value) if isinstance(value, dict) else f.value
        if value is not None and f.args(value):
            overrides[f.name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Form(
        str(config.get("prompt", "")),
        choice,
        str(config.get("negative_prompt", "")),
        config.get("seed", 0),
        None,
        overrides,
    )


def default_fields(choice: Choice) -> list[dict[str, Any]]:
    """The advanced fields of a choice, as plain values for the page. Raises ValueError."""
    return [
        {
            "title": group.title,
            "about": group.description,
            "fields": [{**asdict(f), "label": f.label, "shown": f.text} for f in group.fields],
        }
        for group in field_groups(choice)
    ]


def prompt_warning(prompt: str) -> str:
    """What the embedded prior makes of a prompt: words that it passes over, or nothing.

    Raises ValueError where it knows no object in it, with the nearest that it knows.
    """
    vocabulary = mini_vocabulary()
    unknown = vocabulary.unknown_words(prompt)
    if vocabulary.subject(prompt) is None:
        what = f"it does not know: {', '.join(unknown)}" if unknown else "the prompt names none of them"
        raise ValueError(
            f"The prior mini knows {len(vocabulary.objects)} objects; {what}; {vocabulary.suggestion(unknown)}"
        )
    return f"Passed over, as mini does not know them: {', '.join(unknown)}" if unknown else ""


def parse_int(name: str, value: object) -> int:
    """A whole number that a visitor gave. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected a whole number")
    return int(value)


def parse_float(name: str, value: object) -> float:
    """A number that a visitor gave, as text too. Raises ValueError."""
    try:
        return float(str(value).strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"the {name} is {str(value)[:40]!r}; expected a number") from None


def parse_line(name: str, value: object) -> str:
    """A text that a visitor gave, in one line. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"the {name} is no text")
    text = " ".join(value.split())
    if len(text) > MAX_PROMPT_CHARS:
        raise ValueError(f"the {name} is {len(text)} letters long; at most {MAX_PROMPT_CHARS} are taken")
    return text


def flag_values(args: Sequence[str]) -> list[tuple[str, str]]:
    """(flag, value) of words as this page writes them; values of several words are joined by spaces."""
    found: list[tuple[str, str]] = []
    for word in args:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found.append((name, value))
        elif found:
            name, value = found.pop()
            found.append((name, f"{value} {word}".strip()))
    return found
