"""A diffusion model of others as a `Prior`: whatever its network says, the answer is the noise, in float32."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guidance.critics.lora import Twin
from guidance.priors.base import Condition, per_view
from guidance.priors.diffusers.codecs import Codec
from guidance.priors.diffusers.multiview.camera_embedding import CameraAware, time_width, told
from guidance.priors.diffusers.networks import Asking, Question
from guidance.priors.diffusers.offload import visiting
from guidance.priors.diffusers.prompts.encoding import Reader, markup_in
from guidance.priors.diffusers.prompts.image_prompt import Looker
from guidance.priors.diffusers.schedules import noise_of
from guidance.priors.schedule import Schedule


class FamilyPrior:
    """A text-conditioned `Prior`; `guidance.priors.diffusers.loading` makes one of a folder."""

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
        self.away: torch.device | None = None
        """Where the network works, if it does not lie there (see `visiting`)."""
        self._blank: Tensor | None = None

    @property
    def picture_size(self) -> int:
        return self._size

    @property
    def together(self) -> int:
        """Views of one object that it has to be shown at once, as `guidance.priors.base.Joint` says."""
        return self.asking.together

    @property
    def sees_camera(self) -> bool:
        """Networks that see several views are told where each is."""
        return self.together > 1

    @property
    def device(self) -> torch.device:
        return self.away or self._lies

    @property
    def _lies(self) -> torch.device:
        """Where the network's weights are between passes."""
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
        if len(x_t) % self.together:
            raise ValueError(f"{len(x_t)} views; this model sees {self.together} of one object at once")
        cameras = told([condition.camera for condition in conditions], x_t)
        noisy, text = x_t.to(self.dtype).repeat(many, 1, 1, 1), self._joined(conditions)
        raw = self._asked(Question(noisy, t.repeat(many), sigma.repeat(many), text, cameras))
        a, s, here = per_view(alpha).to(precision), per_view(sigma).to(precision), x_t.to(precision)
        answers = raw.to(precision).chunk(many)
        return torch.stack([noise_of(answer, here, self.prediction, a, s) for answer in answers])

    def read(self, texts: list[str]) -> Condition:
        """Texts as conditions; the end of one that is too long is left out (see `check`)."""
        return self.reader.read(texts, self.device)

    remarks: tuple[str, ...] = ()
    """What was left out when the model was opened."""

    def check(self, text: str) -> str | None:
        """A remark about the end of a text that will be left out, about markup that is read as words, or None."""
        found = [*self.remarks, markup_in(text), self.reader.check(text)]
        return "; ".join(remark for remark in found if remark) or None

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.codec.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.codec.decode(latents)

    def twin(self) -> Twin:
        """This prior around a network of the same weights, which are shared, as nothing changes them, and new modules,
        to which layers can be added unseen by this one; its embedding of the time also takes the camera."""
        network = sharing_copy(self.asking.network)
        if not self.sees_camera:
            clock = network.get_submodule(self.asking.clock)
            network.set_submodule(self.asking.clock, CameraAware(clock, time_width(clock)).to(self._lies))
        other = copy.copy(self)
        other.asking = replace(self.asking, network=network)  # type: ignore[type-var]
        return Twin(other, network, self.asking.layers)

    def _asked(self, question: Question) -> Float[Tensor, "N C h w"]:
        """The network's own answers, in as many passes as the memory wants: where it runs out, half as many rows."""
        count, least = len(question.x_t), self.together
        while True:
            most = max(min(self.rows or count, count) // least, 1) * least
            try:
                with visiting(self.asking.network, self.away):
                    passes = [self._passed(question, slice(n, n + most)) for n in range(0, count, most)]
                return torch.cat(passes)
            except torch.OutOfMemoryError:
                if most == least:
                    raise
                self.rows = max(most // 2 // least, 1) * least
                warnings.warn(f"the memory ran out: from here on {self.rows} pictures in a pass", stacklevel=3)
            torch.cuda.empty_cache()

    def _passed(self, question: Question, rows: slice) -> Float[Tensor, "M C h w"]:
        """The network's own answer to some rows of a question."""
        clock = self.asking.network.get_submodule(self.asking.clock)
        if isinstance(clock, CameraAware):
            clock.tell(question.camera[rows])
        every = torch.arange(len(question.x_t), device=question.x_t.device)[rows]
        text, camera = question.text.rows(every), question.camera[rows]
        return self.asking.answer(Question(question.x_t[rows], question.t[rows], question.sigma[rows], text, camera))

    def _joined(self, conditions: list[Condition]) -> Condition:
        """One condition of all rows, in the network's precision, without cameras."""
        tokens = torch.cat([condition.tokens for condition in conditions]).to(self.dtype)
        pooled = [condition.pooled.to(self.dtype) for condition in conditions if condition.pooled is not None]
        mask = torch.cat([condition.mask for condition in conditions])
        images = [self._picture_of(condition) for condition in conditions] if self._blank is not None else []
        image = torch.cat(images) if images else None
        return Condition(tokens, mask, None, image, pooled=torch.cat(pooled) if pooled else None)

    def _picture_of(self, condition: Condition) -> Float[Tensor, "B N E"]:
        """The picture of a condition as tokens, those of no picture where it has none."""
        assert self._blank is not None
        image = self._blank.expand(len(condition), -1, -1) if condition.image is None else condition.image
        return image.to(self.device, self.dtype)


class SeeingPrior(FamilyPrior):
    """A `Seeing` one: it can be shown what is wanted."""

    def seeing(self, looker: Looker) -> SeeingPrior:
        """The same, with eyes."""
        self._looker = looker
        self._blank = looker.blank()
        return self

    def look(self, rgb: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 N E"]:
        return self._looker.look(rgb).to(self.device)


def sharing_copy(network: nn.Module) -> nn.Module:
    """A network with modules of its own around the very same parameters and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
