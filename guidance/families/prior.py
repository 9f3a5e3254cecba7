"""A diffusion model of others as a `Prior`: whatever its network says, the answer is the noise, in float32."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guidance.critic import Twin
from guidance.families.camera import CameraAware, time_width, told
from guidance.families.codecs import Codec
from guidance.families.networks import Asking, Question
from guidance.families.schedules import noise_of
from guidance.families.texts import Reader
from guidance.prior import Condition, per_view
from guidance.schedule import Schedule


class FamilyPrior:
    """A text-conditioned `Prior` that does not see the camera; `guidance.families.opening` makes one of a folder."""

    sees_camera = False

    def __init__(
        self,
        asking: Asking,
        schedule: Schedule,
        prediction: str,
        codec: Codec,
        reader: Reader,
        size: int,
        rows: int = 0,
    ) -> None:
        """
        Args:
            prediction: what the network says: `epsilon`, `v_prediction`, `sample`, or `flow` (noise - x).
            size: height and width of pictures, pixels.
            rows: pictures in a pass of the network at most; 0 is all.
        """
        self.asking, self.schedule, self.prediction = asking, schedule, prediction
        self.codec, self.reader, self.rows = codec, reader, rows
        self._size = size

    @property
    def picture_size(self) -> int:
        return self._size

    @property
    def device(self) -> torch.device:
        return next(self.asking.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """In which the network works."""
        return next(self.asking.network.parameters()).dtype

    @property
    def distilled(self) -> bool:
        """Whether guidance went into the weights, so that answers must not be guided again."""
        return self.asking.distilled

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        many, precision = len(conditions), torch.promote_types(x_t.dtype, torch.float32)
        alpha, sigma = self.levels(t)
        question = Question(
            x_t.to(self.dtype).repeat(many, 1, 1, 1), t.repeat(many), sigma.repeat(many), self._joined(conditions)
        )
        cameras = told([condition.camera for condition in conditions], x_t)
        raw = self._asked(question, cameras)
        a, s, here = per_view(alpha).to(precision), per_view(sigma).to(precision), x_t.to(precision)
        answers = raw.to(precision).chunk(many)
        return torch.stack([noise_of(answer, here, self.prediction, a, s) for answer in answers])

    def read(self, texts: list[str]) -> Condition:
        """Texts as conditions; the end of one that is too long is left out (see `check`)."""
        return self.reader.read(texts, self.device)

    def check(self, text: str) -> str | None:
        """A remark about the end of a text that will be left out, or None."""
        return self.reader.check(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.codec.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.codec.decode(latents)

    def twin(self) -> Twin:
        """This prior around a network of the same weights, which are shared, as nothing changes them, and new modules,
        to which layers can be added unseen by this one; its embedding of the time also takes the camera."""
        network = sharing_copy(self.asking.network)
        clock = getattr(network, self.asking.clock)
        width = time_width(clock)
        setattr(network, self.asking.clock, CameraAware(clock, width).to(self.device))
        asking = replace(self.asking, network=network)  # type: ignore[type-var]
        other = FamilyPrior(
            asking, self.schedule, self.prediction, self.codec, self.reader, self.picture_size, self.rows
        )
        return Twin(other, network, self.asking.layers)

    def _asked(self, question: Question, cameras: Float[Tensor, "N 5"]) -> Float[Tensor, "N C h w"]:
        """The network's own answers, in as many passes as the memory wants: where it runs out, half as many rows."""
        count = len(question.x_t)
        while True:
            most = min(self.rows or count, count)
            try:
                passes = [self._passed(question, cameras, slice(n, n + most)) for n in range(0, count, most)]
                return torch.cat(passes)
            except torch.OutOfMemoryError:
                if most == 1:
                    raise
                self.rows = most // 2
                warnings.warn(f"the memory ran out: from here on {self.rows} pictures in a pass", stacklevel=3)
            torch.cuda.empty_cache()

    def _passed(self, question: Question, cameras: Float[Tensor, "N 5"], rows: slice) -> Float[Tensor, "M C h w"]:
        """The network's own answer to some rows of a question."""
        clock = getattr(self.asking.network, self.asking.clock)
        if isinstance(clock, CameraAware):
            clock.tell(cameras[rows])
        every = torch.arange(len(question.x_t), device=question.x_t.device)[rows]
        part = Question(question.x_t[rows], question.t[rows], question.sigma[rows], question.text.rows(every))
        return self.asking.answer(part)

    def _joined(self, conditions: list[Condition]) -> Condition:
        """One condition of all rows, in the network's precision, without cameras."""
        tokens = torch.cat([condition.tokens for condition in conditions]).to(self.dtype)
        pooled = [condition.pooled.to(self.dtype) for condition in conditions if condition.pooled is not None]
        mask = torch.cat([condition.mask for condition in conditions])
        return Condition(tokens, mask, None, pooled=torch.cat(pooled) if pooled else None)


def sharing_copy(network: nn.Module) -> nn.Module:
    """A network with modules of its own around the very same parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
