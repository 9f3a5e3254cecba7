"""Prompts without the words that argue against a view (Hong et al. 2023, prompt debiasing).

"a smiling bear" asks for a face, and so argues against its own back view. A masked language model says how likely
each view of a thing is; a word goes from the prompt of a view that is likelier without it. The sentence, the ratio and
its threshold are those of threestudio.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from guidance.priors.views import VIEW_LABELS

RATIO_THRESHOLD = 0.95
"""A word goes where the view's chance with it is less than this share of the mean of those with and without it."""


def debias_prompt(text: str, view_probabilities: Callable[[str], dict[str, float]]) -> dict[str, str]:
    """For each word of `VIEWS` the text that is left of `text`; all of it where nothing would be.

    `view_probabilities` gives the probability of each view for a text; they sum to one. Words are tried one by one.
    """
    words = text.split()
    full_probs = view_probabilities(text)
    probs_without = [view_probabilities(" ".join(words[:index] + words[index + 1 :])) for index in range(len(words))]
    texts = {}
    for view in VIEW_LABELS:
        kept_words = [
            word for word, probs in zip(words, probs_without, strict=True) if _keeps_word(full_probs[view], probs[view])
        ]
        texts[view] = " ".join(kept_words) if kept_words else text
    return texts


def _keeps_word(prob_with: float, prob_without: float) -> bool:
    """Whether a word does a view no harm, by the view's chance with and without it."""
    return prob_with >= RATIO_THRESHOLD * 0.5 * (prob_with + prob_without)


@dataclass(frozen=True)
class LanguageModel:
    """A masked language model and its tokenizer. Make it with `LanguageModel.load`."""

    model: Any
    tokenizer: Any

    @staticmethod
    def load(name: str) -> LanguageModel:
        """A model from a folder, or by its name on the hub, such as bert-base-uncased.

        Raises:
            ImportError: transformers is not installed.
            OSError: there is no such model.
            ValueError: it is no masked language model, or has no word for a view.
        """
        try:
            import transformers
        except ImportError:
            raise ImportError(
                "debias needs a language model; get its library by: pip install 'transformers>=4.45'"
            ) from None
        with _silence_transformers(transformers):
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(name)
                model = transformers.AutoModelForMaskedLM.from_pretrained(name)
            except OSError as error:
                raise OSError(f"debias: {name} can not be opened: {_first_line(error)}") from None
            except Exception as error:  # a damaged folder breaks in a hundred ways
                raise ValueError(f"debias: {name} is no masked language model: {_first_line(error)}") from None
        if tokenizer.mask_token is None:
            raise ValueError(f"debias: {name} is no masked language model: its tokenizer has no mask")
        loaded = LanguageModel(model.eval().requires_grad_(False), tokenizer)
        if missing_views := [view for view in VIEW_LABELS if loaded._token_id(view) is None]:
            raise ValueError(f"debias: {name} does not know {', '.join(missing_views)} as a single word")
        return loaded

    @torch.no_grad()
    def view_probabilities(self, text: str) -> dict[str, float]:
        """The chance of each view of what a text describes, among the four."""
        sentence = f"This image is depicting a {self.tokenizer.mask_token} view of {text}"
        inputs = self.tokenizer(sentence, return_tensors="pt", truncation=True)
        mask_index = (inputs["input_ids"][0] == self.tokenizer.mask_token_id).nonzero()[0, 0]
        logits = self.model(**inputs).logits[0, mask_index]
        probs = logits[[self._token_id(view) for view in VIEW_LABELS]].double().softmax(0)
        return dict(zip(VIEW_LABELS, probs.tolist(), strict=True))

    def _token_id(self, word: str) -> int | None:
        """The number of a word inside a sentence, or None where it has not one of its own."""
        token_ids = self.tokenizer.encode(f" {word}", add_special_tokens=False)
        return token_ids[0] if len(token_ids) == 1 and token_ids[0] != self.tokenizer.unk_token_id else None


@contextlib.contextmanager
def _silence_transformers(transformers: Any) -> Iterator[None]:
    """Without the library's progress bars and warnings about weights it leaves out."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
