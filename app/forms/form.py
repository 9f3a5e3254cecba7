"""What a visitor fills in for one run, and the words of the command line that it becomes, there and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.forms.argument_policy import checked
from app.forms.fields import Choice, groups, words
from configs.run import RunConfig
from configs.serialization import glance
from sds3d.cli import arguments
from sds3d.models.download import here
from sds3d.models.loading import embedded_vocabulary, is_embedded
from sds3d.models.registry import BOOK

PROMPT = 300
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
    changed: Mapping[str, object] = field(default_factory=dict)
    """Values of advanced fields, by name."""

    def words(self) -> list[str]:
        """As the words of `sds3d generate`, without the budget.

        Raises:
            ValueError: in one line, what does not fit; for the embedded prior a prompt that it cannot read too.
            ImportError: a plug-in does not load.
        """
        prompt = plain("prompt", self.prompt)
        if not prompt:
            raise ValueError('the prompt is empty; give one such as "a teddy bear"')
        said = [prompt, *self._flags()]
        parse(said)
        if is_embedded(self.choice.prior):
            remark(prompt)
        return said

    def config(self) -> RunConfig:
        """The run that the words ask for. Raises as `words`."""
        return parse(self.words())

    def _flags(self) -> list[str]:
        said = words(self.choice, self.changed)
        if negative := plain("negative prompt", self.negative):
            said += [f"--negative={negative}"]
        return [*said, "--seed", str(whole("seed", self.seed))]


def parse(said: Sequence[str]) -> RunConfig:
    """The run that words of a visitor ask for; none of them reaches the parser of flags unchecked.

    Raises:
        ValueError: in one line, what does not fit.
        ImportError: a plug-in does not load.
    """
    try:
        config = arguments.generate([*checked(said, 1)]).run
    except SystemExit:
        raise ValueError("the values ask for the help of the command line; see: sds3d generate --help") from None
    if config.prior in BOOK and not any(here(source, config.extras) for source in BOOK[config.prior].sources):
        raise ValueError(
            f"the prior {config.prior} is not on this machine; get it with: sds3d models fetch {config.prior}"
        )
    return config


def form_of_words(said: Sequence[str]) -> Form:
    """The form that gave these words of `sds3d generate`. Raises ValueError."""
    given = dict(pairs(said[1:]))
    choice = Choice(**{name: given.pop(name) for name in Choice.__dataclass_fields__ if name in given})
    known = {f.name.replace("_", "-"): f.name for group in groups(choice) for f in group.fields}
    changed = {known[flag]: value for flag, value in given.items() if flag in known}
    return Form(said[0], choice, given.get("negative", ""), int(given.get("seed", 0)), None, changed)


def form_of_file(folder: Path) -> Form:
    """The form that asks for what a run of the command line was asked, as far as the page has fields for it.

    Raises ValueError for a prior or an objective that the page does not offer.
    """
    row = glance(folder / "run.yaml", RunConfig.__dataclass_fields__)
    kinds = {name: (row.get(name) or {}).get("kind", "") for name in ("objective", "times", "scene")}
    choice = Choice(prior=str(row.get("prior", "mini")), **kinds)
    changed: dict[str, object] = {}
    for f in (f for group in groups(choice) for f in group.fields):
        value: Any = row
        for part in f.name.split("."):
            value = value.get(part, f.value) if isinstance(value, dict) else f.value
        if value is not None and f.words(value):
            changed[f.name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Form(str(row.get("prompt", "")), choice, str(row.get("negative", "")), row.get("seed", 0), None, changed)


def defaults(choice: Choice) -> list[dict[str, Any]]:
    """The advanced fields of a choice, as plain values for the page. Raises ValueError."""
    return [
        {
            "title": group.title,
            "about": group.about,
            "fields": [{**asdict(f), "label": f.label, "shown": f.shown} for f in group.fields],
        }
        for group in groups(choice)
    ]


def remark(prompt: str) -> str:
    """What the embedded prior makes of a prompt: words that it passes over, or nothing.

    Raises ValueError where it knows no object in it, with the nearest that it knows.
    """
    known = embedded_vocabulary()
    unknown = known.unknown(prompt)
    if known.subject(prompt) is None:
        what = f"it does not know: {', '.join(unknown)}" if unknown else "the prompt names none of them"
        raise ValueError(f"The prior mini knows {len(known.names)} objects; {what}; {known.hint(unknown)}")
    return f"Passed over, as mini does not know them: {', '.join(unknown)}" if unknown else ""


def whole(what: str, value: object) -> int:
    """A whole number that a visitor gave. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value % 1:
        raise ValueError(f"{what} is {str(value)[:40]!r}; expected a whole number")
    return int(value)


def number(what: str, value: object) -> float:
    """A number that a visitor gave, as text too. Raises ValueError."""
    try:
        return float(str(value).strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"the {what} is {str(value)[:40]!r}; expected a number") from None


def plain(what: str, value: object) -> str:
    """A text that a visitor gave, in one line. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"the {what} is no text")
    text = " ".join(value.split())
    if len(text) > PROMPT:
        raise ValueError(f"the {what} is {len(text)} letters long; at most {PROMPT} are taken")
    return text


def pairs(said: Sequence[str]) -> list[tuple[str, str]]:
    """(flag, value) of words as this page writes them; values of several words are joined by spaces."""
    found: list[tuple[str, str]] = []
    for word in said:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found.append((name, value))
        elif found:
            name, value = found.pop()
            found.append((name, f"{value} {word}".strip()))
    return found
