"""Several runs that ask one prior in step: what they ask at the same moment is asked in one pass of the network."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guidance.priors.base import Condition, Prior, cat_conditions, views_per_group


@dataclass(frozen=True)
class PredictRequest:
    """One run's question."""

    x_t: Float[Tensor, "B C h w"]
    t: Float[Tensor, " B"]
    conditions: list[Condition]

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Questions of one kind go into one pass."""
        told = [(c.camera is None, c.image_embeds is None, c.text_embeds.shape[1:]) for c in self.conditions]
        return tuple(self.x_t.shape[1:]), self.x_t.dtype, tuple(told)


class PriorBatcher:
    """Where the runs meet: the last one to ask asks for all."""

    def __init__(self, prior: Prior, runs: int) -> None:
        self.prior = prior
        self.passes = 0
        """Of the network, so far."""
        self._active, self._waiting, self._answers = (
            runs,
            dict[int, PredictRequest](),
            dict[int, Tensor | BaseException](),
        )
        self._change = threading.Condition()

    def submit(self, place: int, asked: PredictRequest) -> Float[Tensor, "K B C h w"]:
        """The answer to one run's question, once every run that still goes on has asked. Raises what the pass does."""
        with self._change:
            self._waiting[place] = asked
            self._flush()
            while place not in self._answers:
                self._change.wait()
            answer = self._answers.pop(place)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """One run fewer; those that wait are not kept waiting."""
        with self._change:
            self._active -= 1
            self._flush()

    def _flush(self) -> None:
        """Asks, where all are here. Runs are taken in their own order, so that who came last changes nothing."""
        if not self._waiting or len(self._waiting) < self._active:
            return
        kinds = defaultdict(list)
        for place in sorted(self._waiting):
            kinds[self._waiting[place].batch_key].append(place)
        for places in kinds.values():
            try:
                self._answers |= dict(zip(places, self._together([self._waiting[p] for p in places]), strict=True))
            except Exception as error:  # whatever it is, every run that asked has to hear of it
                self._answers |= dict.fromkeys(places, error)
        self._waiting.clear()
        self._change.notify_all()

    @torch.no_grad()
    def _together(self, asked: list[PredictRequest]) -> list[Tensor]:
        self.passes += 1
        x_t, t = torch.cat([one.x_t for one in asked]), torch.cat([one.t for one in asked])
        conditions = [cat_conditions(list(each)) for each in zip(*(one.conditions for one in asked), strict=True)]
        answers = self.prior.predict_noise(x_t, t, conditions)
        return list(answers.split([len(one.x_t) for one in asked], 1))


class BatchedPrior:
    """A prior as one of the runs of a meeting sees it: its questions are asked with those of the others."""

    def __init__(self, meeting: PriorBatcher, place: int) -> None:
        self._meeting, self._place, self._prior = meeting, place, meeting.prior

    @property
    def image_size(self) -> int:
        return self._prior.image_size

    @property
    def camera_conditioned(self) -> bool:
        return self._prior.camera_conditioned

    @property
    def views_per_group(self) -> int:
        return views_per_group(self._prior)

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self._prior.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        return self._meeting.submit(self._place, PredictRequest(x_t, t, conditions))

    def encode_prompt(self, texts: list[str]) -> Condition:
        return self._prior.encode_prompt(texts)

    def validate_prompt(self, text: str) -> str | None:
        return self._prior.validate_prompt(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self._prior.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self._prior.decode(latents)
