"""Texts as a pipeline reads them, each read once."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from guidance.priors.base import Condition
from guidance.priors.mini.vocabulary import VIEWS


class Read(NamedTuple):
    """A text as it is read."""

    tokens: Float[Tensor, "1 L D"]
    pooled: Float[Tensor, "1 P"] | None = None
    """The text as one row, where the family has such."""
    mask: Bool[Tensor, "1 L"] | None = None
    """True where a token counts; None where all do, as networks of most families see padding too."""


_MARKUP = re.compile(r"<(?:lora|lyco|hypernet):[^>]*>|\([^()]*:\s*[\d.]+\)|\[[^\[\]]*:[^\[\]]*\]|\bBREAK\b|\bAND\b")
"""Markup of other programs: weights of words, files, scheduled words."""


def markup_in(text: str) -> str | None:
    """A remark about markup of other programs in a prompt, which is read as plain words, or None."""
    found = _MARKUP.findall(text)
    if not found:
        return None
    what = ", ".join(part if len(part) <= 40 else part[:40] + "..." for part in found[:3])
    files = " (a LoRA goes on by --extras.lora FILE)" if any(part.startswith("<") for part in found) else ""
    return f"markup is read as plain words: {what}{files}"


Way = Callable[[Any, str], Read]
"""How a family's pipeline reads one text."""

Reopen = Callable[[], Any]
MOST_TOLD = 80
"""Characters of what is passed over."""


@runtime_checkable
class Store(Protocol):
    """Texts that were read before, of one model."""

    def get(self, text: str) -> Read | None: ...

    def put(self, text: str, read: Read) -> None: ...


class Reader:
    """The text encoders of a pipeline. Every text goes through them once; they can leave the memory in between."""

    def __init__(self, pipe: Any, way: Way, reopen: Reopen | None = None, store: Store | None = None) -> None:
        """
        Args:
            reopen: gives the pipeline with its text encoders; where it is there, `pipe` has none, and they leave the
                memory after every reading.
            store: what earlier runs read.
        """
        self._pipe, self._way, self._reopen, self._store = pipe, way, reopen, store
        self._known: dict[str, Read] = {}

    @torch.no_grad()
    def read(self, texts: list[str], device: torch.device) -> Condition:
        """Conditions in float32."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if self._store is not None:
            self._known |= {text: kept for text in fresh if (kept := self._store.get(text)) is not None}
            fresh = [text for text in fresh if text not in self._known]
        if fresh:
            self._learn(fresh)
        known = [self._known[text] for text in texts]
        tokens = torch.cat([read.tokens.to(device) for read in known])
        rows = [read.pooled.to(device) for read in known if read.pooled is not None]
        every = torch.ones(1, tokens.shape[1], dtype=torch.bool)
        mask = torch.cat([every if read.mask is None else read.mask.cpu() for read in known]).to(device)
        return Condition(tokens, mask, None, pooled=torch.cat(rows).to(device) if rows else None)

    def check(self, text: str) -> str | None:
        """A remark about the end of a text that is longer than the model reads with a view's words, or None."""
        longest = f"{text}, {max(VIEWS, key=len)} view"
        cut = [left_out(tokenizer, limit, longest) for tokenizer, limit in self.tokenizers()]
        if not cut or not all(cut):
            return None  # One that reads all of it is enough.
        limit, least = max(limit for _, limit in self.tokenizers()), min(cut, key=len)
        told = least if len(least) <= MOST_TOLD else least[:MOST_TOLD] + " ..."
        return f"the model reads {limit} tokens, words for the view included; passed over: {told}"

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Every tokenizer whose encoder is there, with how many tokens it reads."""
        return [(tokenizer, limit) for tokenizer, limit in _tokenizers(self._pipe) if tokenizer is not None]

    def _learn(self, texts: list[str]) -> None:
        pipe = self._pipe if self._reopen is None else self._reopen()
        with _unheard():
            for text in texts:
                tokens, pooled, mask = self._way(pipe, text)
                self._known[text] = Read(tokens.float(), None if pooled is None else pooled.float(), mask)
                if self._store is not None:
                    self._store.put(text, self._known[text])


def left_out(tokenizer: Any, limit: int, text: str) -> str:
    """What of a text a tokenizer does not reach, in its own spelling; empty where it reads all."""
    numbers = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    room = limit - tokenizer.num_special_tokens_to_add()
    told: str = tokenizer.decode(numbers[room:]).strip() if len(numbers) > room else ""
    return told


@contextmanager
def _unheard() -> Iterator[None]:
    """Inside, the libraries do not say again what `check` has said, for every view and encoder."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def stable_diffusion(pipe: Any, text: str) -> Read:
    return Read(pipe.encode_prompt(text, _device(pipe), 1, False)[0])


def stable_diffusion_xl(pipe: Any, text: str) -> Read:
    """Two encoders; some models were trained with zeros for no text."""
    tokens, _, pooled, _ = pipe.encode_prompt(
        prompt=text, device=_device(pipe), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if not text and pipe.config.get("force_zeros_for_empty_prompt"):
        return Read(torch.zeros_like(tokens), torch.zeros_like(pooled))
    return Read(tokens, pooled)


def deepfloyd(pipe: Any, text: str) -> Read:
    return Read(pipe.encode_prompt(text, False, num_images_per_prompt=1, device=_device(pipe))[0])


def pixart(pipe: Any, text: str) -> Read:
    """Its network is told which tokens are padding."""
    tokens, mask, _, _ = pipe.encode_prompt(text, False, device=_device(pipe), max_sequence_length=pixart_tokens(pipe))
    return Read(tokens, None, mask.bool())


def pixart_tokens(pipe: Any) -> int:
    """How many tokens PixArt reads: 300 as Sigma, and 120 as Alpha."""
    return 300 if type(pipe).__name__ == "PixArtSigmaPipeline" else 120


def sana(pipe: Any, text: str) -> Read:
    """A language model reads it, behind the instruction that its pipeline puts before a prompt, and not before none."""
    instruction = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default if text else None
    tokens, mask, _, _ = pipe.encode_prompt(text, False, device=_device(pipe), complex_human_instruction=instruction)
    return Read(tokens, None, mask.bool())


SANA_TOKENS = 299
"""Of 300 that its network is shown the last of the instruction takes one."""


def stable_diffusion_3(pipe: Any, text: str) -> Read:
    tokens, _, pooled, _ = pipe.encode_prompt(
        prompt=text, prompt_2=text, prompt_3=text, device=_device(pipe), do_classifier_free_guidance=False
    )
    return Read(tokens, pooled)


def flux(pipe: Any, text: str) -> Read:
    tokens, pooled, _ = pipe.encode_prompt(
        prompt=text, prompt_2=text, device=_device(pipe), max_sequence_length=flux_tokens(pipe)
    )
    return Read(tokens, pooled)


def flux_tokens(pipe: Any) -> int:
    """How many tokens FLUX reads: 512 where it is told its guidance, and 256 where it was distilled in steps too."""
    return 512 if pipe.transformer.config.guidance_embeds else 256


def _device(pipe: Any) -> torch.device:
    """Of its first text encoder."""
    first = pipe.text_encoder if pipe.text_encoder is not None else pipe.text_encoder_2
    device: torch.device = first.device
    return device


def _tokenizers(pipe: Any) -> list[tuple[Any, int]]:
    kind = type(pipe).__name__
    if kind == "StableDiffusion3Pipeline":
        second, third = pipe.tokenizer_2, pipe.tokenizer_3
        return [(pipe.tokenizer, 77), (second, 77), (third, 256)]
    if kind == "FluxPipeline":
        return [(pipe.tokenizer_2, flux_tokens(pipe))]
    if kind == "IFPipeline":
        return [(pipe.tokenizer, 77)]
    if kind.startswith("PixArt"):
        return [(pipe.tokenizer, pixart_tokens(pipe))]
    if kind == "SanaPipeline":
        return [(pipe.tokenizer, SANA_TOKENS)]
    every = [pipe.tokenizer, pipe.tokenizer_2] if kind == "StableDiffusionXLPipeline" else [pipe.tokenizer]
    return [(tokenizer, tokenizer.model_max_length) for tokenizer in every if tokenizer is not None]
