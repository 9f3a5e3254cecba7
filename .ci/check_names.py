"""Checks that identifiers use the standard terms of CONTRIBUTING.md's glossary.

Every name in Python and C++ sources is split into its words (snake_case and CamelCase); a word of the table below is
an error, printed with its place and the term to use. Exit code 1 if there is any.
"""

from __future__ import annotations

import io
import keyword
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREES = ("guidance", "renderers", "configs", "sds3d", "app", "tests", "benchmarks", "examples", ".ci")

INSTEAD = {
    "answer answers answered": "noise_pred (of a network), result",
    "asked asks asking ask": "requested, args, config",
    "backdrop backdrops": "background",
    "beside": "sidecar, guidance_models",
    "chance": "rng, rngs",
    "coat coated coats": "material",
    "colour colours coloured": "color",
    "companion companions": "guidance_models",
    "door doors": "wrapper, entry point",
    "film films": "video",
    "hears heard hear": "uses_...",
    "house room rooms wing wings": "package, module, layer",
    "knob knobs": "config, options",
    "least fewest faintest thinnest": "min",
    "most largest longest widest": "max",
    "meeting meetings": "batcher",
    "normalise normalised normalises": "normalize",
    "optimiser optimisers optimise optimised": "optimizer, optimize",
    "picture pictures": "image, render",
    "pull pulled pulls": "grad",
    "rasterise rasterised rasteriser rasterises": "rasterize",
    "said say says saying": "describe, log",
    "settle settled settles": "post_step, update",
    "slowly": "reference",
    "told tell tells telling": "describe, summary, condition",
    "twin twins": "reference, lora_target",
    "wanted": "conditions, requested",
    "wish wishes wished": "options",
}
"""Words that no identifier may hold -> the term to use."""

EXCEPTIONS: dict[str, str] = {
    "tell": "method of Python's file objects",
    "optimise": "option of pyinstantmeshes and others' keyword",
}
"""Whole identifiers that are other people's -> whose."""

FORBIDDEN = {word: term for words, term in INSTEAD.items() for word in words.split()}
_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def words_of(identifier: str) -> list[str]:
    """Splits an identifier into lower-case words."""
    return [part.lower() for part in _PART.findall(identifier)]


def names_in_python(source: str) -> Iterator[tuple[int, str]]:
    """Yields (line, identifier) of a Python source."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            yield token.start[0], token.string


def names_in_cpp(source: str) -> Iterator[tuple[int, str]]:
    """Yields (line, identifier) of a C++ source; comments and strings are left out."""
    blanked = re.sub(
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"",
        lambda match: re.sub(r"[^\n]", " ", match.group()),
        source,
        flags=re.DOTALL,
    )
    for number, line in enumerate(blanked.splitlines(), 1):
        for match in re.finditer(r"[A-Za-z_]\w*", line):
            yield number, match.group()


def main() -> int:
    """Prints one line per forbidden identifier and returns the exit code."""
    listed = subprocess.run(["git", "ls-files", *TREES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    readers = {".py": names_in_python, ".cpp": names_in_cpp, ".h": names_in_cpp}
    found = 0
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix not in readers or path == Path(__file__).resolve() or not path.is_file():
            continue
        seen: set[str] = set()
        for line, identifier in readers[path.suffix](path.read_text(encoding="utf-8")):
            for word in words_of(identifier):
                if word in FORBIDDEN and identifier not in EXCEPTIONS and identifier not in seen:
                    seen.add(identifier)
                    found += 1
                    print(f"{name}:{line}: {identifier}: instead of '{word}' use {FORBIDDEN[word]}")
    if found:
        print(f"{found} identifiers do not use the standard terms; see the glossary in CONTRIBUTING.md")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
