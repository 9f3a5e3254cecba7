"""The words the embedded prior knows, and how a text becomes their numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from guidance.priors.views import VIEW_LABELS

STOP_WORDS = frozenset(
    # Joints of a sentence, then what people add for the sake of a picture.
    (
        *("a", "an", "the", "of", "in", "on", "with", "and", "at", "for", "from", "to", "its", "it", "is", "that"),
        *("this", "one", "some", "very", "photo", "picture", "image", "render", "rendering", "model", "3d", "asset"),
        *("view", "highly", "detailed", "quality"),
    )
)
"""Words that change nothing and are passed over."""


@dataclass(frozen=True)
class Vocabulary:
    """What the prior was taught to draw and to read."""

    objects: dict[str, tuple[str, ...]]
    """Every object and its synonyms."""
    colors: tuple[str, ...]
    materials: tuple[str, ...]
    words: tuple[str, ...]
    """Every single word, in the order of the network's embedding; the first is the empty word."""

    @staticmethod
    def from_phrases(
        objects: dict[str, tuple[str, ...]], colors: tuple[str, ...], materials: tuple[str, ...]
    ) -> Vocabulary:
        """The vocabulary that covers these phrases."""
        phrases = [phrase for name, others in objects.items() for phrase in (name, *others)]
        singles = {word for phrase in (*phrases, *colors, *materials, *VIEW_LABELS) for word in split_words(phrase)}
        return Vocabulary(objects, colors, materials, ("", *sorted(singles)))

    @cached_property
    def token_ids(self) -> dict[str, int]:
        """Place of each word in `words`."""
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def phrases(self) -> dict[str, str]:
        """Name of the object for every phrase that means it, longest phrases first."""
        pairs = [(phrase, name) for name, others in self.objects.items() for phrase in (*others, name)]
        return dict(sorted(pairs, key=lambda pair: -len(pair[0])))

    def tokenize(self, text: str) -> list[int]:
        """Numbers of the words of a text, unknown ones left out, each once."""
        return list(
            dict.fromkeys(self.token_ids[word] for word in map(self._normalize_word, split_words(text)) if word)
        )

    def unknown_words(self, text: str) -> list[str]:
        """Words of a text that the prior was never taught."""
        return [word for word in split_words(text) if not self._normalize_word(word)]

    def subject(self, text: str) -> str | None:
        """The object a text is about, by its longest known phrase, or None."""
        return next(iter(self.subjects(text)), None)

    def subjects(self, text: str) -> list[str]:
        """The objects a text names, each once, those of longer phrases first; a phrase inside a longer one is none."""
        remaining = f" {' '.join(self._normalize_word(word) or word for word in split_words(text))} "
        found: dict[str, None] = {}
        for phrase, name in self.phrases.items():
            spelled = f" {' '.join(split_words(phrase))} "
            if spelled in remaining:
                remaining = remaining.replace(spelled, " / ")
                found[name] = None
        return list(found)

    def nearest(self, word: str, count: int = 3) -> list[str]:
        """Known objects and colours with a word that a slip of the fingers would turn into `word`.

        One letter more, less, another or two swapped, from eight letters on two of these; what is only spelled alike
        is no help.
        """
        max_distance = 2 if len(word) >= 8 else 1
        if len(word) < 3:
            return []
        ranked = []
        for name in (*self.phrases, *self.colors):
            distance = min(edit_distance(word, part) for part in split_words(name))
            if distance <= max_distance:
                ranked.append((distance, len(name), name))
        return [name for _, _, name in sorted(ranked)][:count]

    def suggestion(self, unknown: Collection[str]) -> str:
        """One clause on what to write instead of unknown words."""
        nearest = list(dict.fromkeys(name for word in unknown for name in self.nearest(word)))
        return f"nearest: {', '.join(nearest)}" if nearest else f"for example: {', '.join(list(self.objects)[:6])}"

    def validate_prompt(self, text: str) -> str | None:
        """A remark about words that will be passed over and objects that are too many, or None.

        Raises:
            ValueError: the text names no object.
        """
        unknown = self.unknown_words(text)
        known_text = (
            f"the embedded prior knows {len(self.objects)} objects and {len(self.colors)} colours"
            f" (see them with: sds3d prior words)"
        )
        subjects = self.subjects(text)
        if not subjects:
            problem = f"unknown: {', '.join(unknown)}" if unknown else "the prompt names none of the objects"
            raise ValueError(f"{known_text}; {problem}; {self.suggestion(unknown)}")
        warnings = [f"{known_text}; passed over: {', '.join(unknown)}"] if unknown else []
        if len(subjects) > 1:
            warnings.append(
                f"the embedded prior was taught one object at a time; of {' and '.join(subjects)} "
                "expect one, or a mixture"
            )
        return "; ".join(warnings) or None

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(file: Path) -> Vocabulary:
        """What `save` wrote. Raises FileNotFoundError, or ValueError if the file is damaged."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            objects = {name: tuple(others) for name, others in data["objects"].items()}
            return Vocabulary(objects, tuple(data["colors"]), tuple(data["materials"]), tuple(data["words"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: expected names, colours, materials and words ({error})") from None

    def _normalize_word(self, word: str) -> str:
        """The word as taught: itself, without its plural s, or nothing."""
        forms = (word, word.removesuffix("s"), word.removesuffix("es"), word.replace("gray", "grey"))
        return next((form for form in forms if form in self._known_words), "")

    @cached_property
    def _known_words(self) -> frozenset[str]:
        """Single words of everything that was taught; `words` may hold more, of objects still to come."""
        return frozenset(
            word for text in (*self.phrases, *self.colors, *self.materials, *VIEW_LABELS) for word in split_words(text)
        )


def split_words(text: str) -> list[str]:
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
