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
from guidance.priors.views import VIEW_LABELS


class PromptEmbeds(NamedTuple):
    """A text as it is read."""

    text_embeds: Float[Tensor, "1 L D"]
    pooled_embeds: Float[Tensor, "1 P"] | None = None
    """The text as one row, where the family has such."""
    attention_mask: Bool[Tensor, "1 L"] | None = None
    """True where a token counts; None where all do, as networks of most families see padding too."""

    def on(self, device: torch.device) -> PromptEmbeds:
        """The same on a device."""
        return PromptEmbeds(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


_UNSUPPORTED_MARKUP = re.compile(
    r"<(?:lora|lyco|hypernet):[^>]*>|\([^()]*:\s*[\d.]+\)|\[[^\[\]]*:[^\[\]]*\]|\bBREAK\b|\bAND\b"
)
"""Markup of other programs: weights of words, files, scheduled words."""


def unsupported_markup(text: str) -> str | None:
    """A remark about markup of other programs in a prompt, which is read as plain words, or None."""
    matches = _UNSUPPORTED_MARKUP.findall(text)
    if not matches:
        return None
    shown = ", ".join(part if len(part) <= 40 else part[:40] + "..." for part in matches[:3])
    files = " (a LoRA goes on by --prior-options.lora FILE)" if any(part.startswith("<") for part in matches) else ""
    return f"markup is read as plain words: {shown}{files}"


EncodeFn = Callable[[Any, str], PromptEmbeds]
"""How a family's pipeline reads one text."""

LoadPipeline = Callable[[], Any]
MAX_REPORTED_CHARS = 80
"""Characters of what is passed over."""


@runtime_checkable
class PromptStore(Protocol):
    """Texts that were read before, of one model."""

    def get(self, text: str) -> PromptEmbeds | None: ...

    def put(self, text: str, embeds: PromptEmbeds) -> None: ...


class PromptEncoder:
    """The text encoders of a pipeline. Every text goes through them once; they can leave the memory in between."""

    def __init__(
        self,
        pipe: Any,
        encode_fn: EncodeFn,
        load_pipeline: LoadPipeline | None = None,
        store: PromptStore | None = None,
    ) -> None:
        """
        Args:
            load_pipeline: returns the pipeline with its text encoders; where given, `pipe` has none, and they leave
                the memory after each prompt.
            store: what earlier runs read.
        """
        self._pipe, self._encode_fn, self._load_pipeline, self._store = pipe, encode_fn, load_pipeline, store
        self._cache: dict[str, PromptEmbeds] = {}

    @torch.no_grad()
    def encode(self, texts: list[str], device: torch.device) -> Condition:
        """Conditions in float32."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if self._store is not None:
            self._cache |= {text: stored for text in missing if (stored := self._store.get(text)) is not None}
            missing = [text for text in missing if text not in self._cache]
        if missing:
            self._encode_new(missing)
        for text in dict.fromkeys(texts):  # What was kept lies in main memory, what was read where it was read.
            self._cache[text] = self._cache[text].on(device)
        embeds = [self._cache[text] for text in texts]
        tokens = torch.cat([item.text_embeds for item in embeds])
        rows = [item.pooled_embeds for item in embeds if item.pooled_embeds is not None]
        all_tokens = torch.ones(1, tokens.shape[1], dtype=torch.bool, device=device)
        mask = torch.cat([all_tokens if item.attention_mask is None else item.attention_mask for item in embeds])
        return Condition(tokens, mask, None, pooled_embeds=torch.cat(rows) if rows else None)

    def validate(self, text: str) -> str | None:
        """A remark about the end of a text that is longer than the model reads with a view's words, or None."""
        longest = f"{text}, {max(VIEW_LABELS, key=len)} view"
        truncated = [truncated_text(tokenizer, limit, longest) for tokenizer, limit in self.tokenizers()]
        if not truncated or not all(truncated):
            return None  # One that reads all of it is enough.
        limit, shortest = max(limit for _, limit in self.tokenizers()), min(truncated, key=len)
        shown = shortest if len(shortest) <= MAX_REPORTED_CHARS else shortest[:MAX_REPORTED_CHARS] + " ..."
        return f"the model reads {limit} tokens, words for the view included; passed over: {shown}"

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Every tokenizer whose encoder is there, with how many tokens it reads."""
        return [(tokenizer, limit) for tokenizer, limit in _tokenizers(self._pipe) if tokenizer is not None]

    def _encode_new(self, texts: list[str]) -> None:
        pipe = self._pipe if self._load_pipeline is None else self._load_pipeline()
        with _silence_warnings():
            for text in texts:
                tokens, pooled, mask = self._encode_fn(pipe, text)
                self._cache[text] = PromptEmbeds(tokens.float(), None if pooled is None else pooled.float(), mask)
                if self._store is not None:
                    self._store.put(text, self._cache[text])


def truncated_text(tokenizer: Any, limit: int, text: str) -> str:
    """What of a text a tokenizer does not reach, in its own spelling; empty where it reads all."""
    token_ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    max_tokens = limit - tokenizer.num_special_tokens_to_add()
    dropped: str = tokenizer.decode(token_ids[max_tokens:]).strip() if len(token_ids) > max_tokens else ""
    return dropped


@contextmanager
def _silence_warnings() -> Iterator[None]:
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


def stable_diffusion(pipe: Any, text: str) -> PromptEmbeds:
    return PromptEmbeds(pipe.encode_prompt(text, _device(pipe), 1, False)[0])


def stable_diffusion_xl(pipe: Any, text: str) -> PromptEmbeds:
    """Two encoders; some models were trained with zeros for no text."""
    tokens, _, pooled, _ = pipe.encode_prompt(
        prompt=text, device=_device(pipe), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if not text and pipe.config.get("force_zeros_for_empty_prompt"):
        return PromptEmbeds(torch.zeros_like(tokens), torch.zeros_like(pooled))
    return PromptEmbeds(tokens, pooled)


def deepfloyd(pipe: Any, text: str) -> PromptEmbeds:
    return PromptEmbeds(pipe.encode_prompt(text, False, num_images_per_prompt=1, device=_device(pipe))[0])


def pixart(pipe: Any, text: str) -> PromptEmbeds:
    """Its network is told which tokens are padding."""
    tokens, mask, _, _ = pipe.encode_prompt(text, False, device=_device(pipe), max_sequence_length=pixart_tokens(pipe))
    return PromptEmbeds(tokens, None, mask.bool())


def pixart_tokens(pipe: Any) -> int:
    """How many tokens PixArt reads: 300 as Sigma, and 120 as Alpha."""
    return 300 if type(pipe).__name__ == "PixArtSigmaPipeline" else 120


def sana(pipe: Any, text: str) -> PromptEmbeds:
    """A language model reads it, behind the instruction that its pipeline puts before a prompt, and not before none."""
    instruction = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default if text else None
    tokens, mask, _, _ = pipe.encode_prompt(text, False, device=_device(pipe), complex_human_instruction=instruction)
    return PromptEmbeds(tokens, None, mask.bool())


SANA_TOKENS = 299
"""Of 300 that its network is shown the last of the instruction takes one."""


def stable_diffusion_3(pipe: Any, text: str) -> PromptEmbeds:
    tokens, _, pooled, _ = pipe.encode_prompt(
        prompt=text, prompt_2=text, prompt_3=text, device=_device(pipe), do_classifier_free_guidance=False
    )
    return PromptEmbeds(tokens, pooled)


def flux(pipe: Any, text: str) -> PromptEmbeds:
    tokens, pooled, _ = pipe.encode_prompt(
        prompt=text, prompt_2=text, device=_device(pipe), max_sequence_length=flux_tokens(pipe)
    )
    return PromptEmbeds(tokens, pooled)


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
    tokenizers = [pipe.tokenizer, pipe.tokenizer_2] if kind == "StableDiffusionXLPipeline" else [pipe.tokenizer]
    return [(tokenizer, tokenizer.model_max_length) for tokenizer in tokenizers if tokenizer is not None]
