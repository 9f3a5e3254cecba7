"""The words the embedded prior knows, and how a text becomes their numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

STOP_WORDS = frozenset(
    # Joints of a sentence, then what people add for the sake of a picture.
    (
        *("a", "an", "the", "of", "in", "on", "with", "and", "at", "for", "from", "to", "its", "it", "is", "that"),
        *("this", "one", "some", "very", "photo", "picture", "image", "render", "rendering", "model", "3d", "asset"),
        *("view", "highly", "detailed", "quality"),
    )
)
"""Words that change nothing and are passed over."""

VIEWS = ("front", "side", "back", "overhead")
"""Words for where the camera stands, as in "a teddy bear, front view"."""


@dataclass(frozen=True)
class Vocabulary:
    """What the prior was taught to draw and to read."""

    names: dict[str, tuple[str, ...]]
    """Every object and its synonyms."""
    colours: tuple[str, ...]
    materials: tuple[str, ...]
    words: tuple[str, ...]
    """Every single word, in the order of the network's embedding; the first is the empty word."""

    @staticmethod
    def of(names: dict[str, tuple[str, ...]], colours: tuple[str, ...], materials: tuple[str, ...]) -> Vocabulary:
        """The vocabulary that covers these phrases."""
        phrases = [phrase for name, others in names.items() for phrase in (name, *others)]
        singles = {word for phrase in (*phrases, *colours, *materials, *VIEWS) for word in split(phrase)}
        return Vocabulary(names, colours, materials, ("", *sorted(singles)))

    @cached_property
    def number(self) -> dict[str, int]:
        """Place of each word in `words`."""
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def phrases(self) -> dict[str, str]:
        """Name of the object for every phrase that means it, longest phrases first."""
        pairs = [(phrase, name) for name, others in self.names.items() for phrase in (*others, name)]
        return dict(sorted(pairs, key=lambda pair: -len(pair[0])))

    def read(self, text: str) -> list[int]:
        """Numbers of the words of a text, unknown ones left out, each once."""
        return list(dict.fromkeys(self.number[word] for word in map(self._known, split(text)) if word))

    def unknown(self, text: str) -> list[str]:
        """Words of a text that the prior was never taught."""
        return [word for word in split(text) if not self._known(word)]

    def subject(self, text: str) -> str | None:
        """The object a text is about, by its longest known phrase, or None."""
        return next(iter(self.subjects(text)), None)

    def subjects(self, text: str) -> list[str]:
        """The objects a text names, each once, those of longer phrases first; a phrase inside a longer one is none."""
        rest = f" {' '.join(self._known(word) or word for word in split(text))} "
        found: dict[str, None] = {}
        for phrase, name in self.phrases.items():
            spelled = f" {' '.join(split(phrase))} "
            if spelled in rest:
                rest = rest.replace(spelled, " / ")
                found[name] = None
        return list(found)

    def nearest(self, word: str, count: int = 3) -> list[str]:
        """Known objects and colours with a word that a slip of the fingers would turn into `word`.

        One letter more, less, another or two swapped, from eight letters on two of these; what is only spelled alike
        is no help.
        """
        slips = 2 if len(word) >= 8 else 1
        if len(word) < 3:
            return []
        ranked = []
        for name in (*self.phrases, *self.colours):
            distance = min(edit_distance(word, part) for part in split(name))
            if distance <= slips:
                ranked.append((distance, len(name), name))
        return [name for _, _, name in sorted(ranked)][:count]

    def hint(self, unknown: Collection[str]) -> str:
        """One clause on what to write instead of unknown words."""
        near = list(dict.fromkeys(name for word in unknown for name in self.nearest(word)))
        return f"nearest: {', '.join(near)}" if near else f"for example: {', '.join(list(self.names)[:6])}"

    def check(self, text: str) -> str | None:
        """A remark about words that will be passed over and objects that are too many, or None.

        Raises:
            ValueError: the text names no object.
        """
        unknown = self.unknown(text)
        told = (
            f"the embedded prior knows {len(self.names)} objects and {len(self.colours)} colours"
            f" (see them with: sds3d prior words)"
        )
        subjects = self.subjects(text)
        if not subjects:
            what = f"unknown: {', '.join(unknown)}" if unknown else "the prompt names none of the objects"
            raise ValueError(f"{told}; {what}; {self.hint(unknown)}")
        remarks = [f"{told}; passed over: {', '.join(unknown)}"] if unknown else []
        if len(subjects) > 1:
            remarks.append(
                f"the embedded prior was taught one object at a time; of {' and '.join(subjects)} "
                "expect one, or a mixture"
            )
        return "; ".join(remarks) or None

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(file: Path) -> Vocabulary:
        """What `save` wrote. Raises FileNotFoundError, or ValueError if the file is damaged."""
        try:
            row = json.loads(file.read_text(encoding="utf-8"))
            names = {name: tuple(others) for name, others in row["names"].items()}
            return Vocabulary(names, tuple(row["colours"]), tuple(row["materials"]), tuple(row["words"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: expected names, colours, materials and words ({error})") from None

    def _known(self, word: str) -> str:
        """The word as taught: itself, without its plural s, or nothing."""
        forms = (word, word.removesuffix("s"), word.removesuffix("es"), word.replace("gray", "grey"))
        return next((form for form in forms if form in self._taught), "")

    @cached_property
    def _taught(self) -> frozenset[str]:
        """Single words of everything that was taught; `words` may hold more, of objects still to come."""
        return frozenset(
            word for text in (*self.phrases, *self.colours, *self.materials, *VIEWS) for word in split(text)
        )


def split(text: str) -> list[str]:
    """The words of a text that carry meaning, in lower case."""
    return [word for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()) if word not in STOP_WORDS]


def edit_distance(a: str, b: str) -> int:
    """Letters to insert, delete, replace or swap with their neighbour between two words (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        now = [i]
        for j, other in enumerate(b, 1):
            now.append(min(last[j] + 1, now[-1] + 1, last[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                now[-1] = min(now[-1], before[j - 2] + 1)
        before, last = last, now
    return last[-1]
