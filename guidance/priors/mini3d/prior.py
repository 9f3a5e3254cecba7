"""The embedded prior that knows its objects in three dimensions.

Every object is one model or several, as splats. A text picks models and paints, a camera draws them, and the noised
picture weighs what was drawn (`mixture.py`): the answer is the exact mean under that mixture. Nothing in it
needed to be trained but the splats; without a text it expects the Gaussian that all its pictures together make.
Where the camera is left out, every model is expected from all sides.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from guidance.conditioning.prompt import view_word
from guidance.critics.lora import Twin
from guidance.priors.base import Condition, per_view
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.vocabulary import VIEWS, Vocabulary, split
from guidance.priors.mini3d.mixture import Components, posterior
from guidance.priors.mini3d.splat_models import Packed
from guidance.priors.mini3d.splat_rendering import Splats, pictures
from guidance.priors.mini3d.velocity_correction import Correction
from guidance.priors.schedule import ScaledLinear
from guidance.priors.weights import fill, read_tensors

FOLDER = Path(__file__).parent / "weights"
"""Where the shipped splats are."""
CLASS = "MiniPrior"
AZIMUTHS, ELEVATIONS = 24, (0.05, 0.5)
"""Sides that are expected where the camera is left out; elevations in radians, and one view from overhead."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"
LEAST_VARIANCE = 1e-3
"""Of a latent, where nothing is drawn."""
_LUMINANCE = (0.299, 0.587, 0.114)


class Expected(nn.Module):
    """What is expected of pictures, beside the models."""

    picture: Tensor
    """[4, S, S] the mean picture of all: colour times opacity, and opacity."""
    variance: Tensor
    """[C, G, G] around it, where there is no text."""
    spread: Tensor
    """[C] the variance of true pictures around those of splats, in patches that are covered."""
    paints: Tensor
    """[P, 3] sRGB values of the vocabulary's colours."""

    def __init__(self, channels: int, patch: int, grid: int, paints: int) -> None:
        super().__init__()
        self.register_buffer("picture", torch.zeros(4, patch * grid, patch * grid))
        self.register_buffer("variance", torch.ones(channels, grid, grid))
        self.register_buffer("spread", torch.ones(channels))
        self.register_buffer("paints", torch.zeros(paints, 3))


@dataclass(frozen=True)
class Candidate:
    """A model in one of its colours, and the logarithm of how likely it is."""

    model: Splats
    log_share: float


class MiniPrior:
    """A text- and camera-conditioned `Prior` in closed form around splats."""

    sees_camera = True
    schedule = ScaledLinear()

    def __init__(self, packed: Packed, expected: Expected, codec: PatchCodec, vocabulary: Vocabulary) -> None:
        self.packed, self.vocabulary = packed, vocabulary
        self.expected, self.codec = expected.requires_grad_(False), codec.requires_grad_(False)
        self.correction: Correction | None = None
        """What is added to the velocity; only a critic has one."""
        self._names = tuple(vocabulary.names)
        self._model = lru_cache(64)(self._painted)
        self._candidates = lru_cache(256)(self._picked)
        self._around = lru_cache(8)(self._from_everywhere)

    @property
    def picture_size(self) -> int:
        return self.expected.picture.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.expected.picture.device

    def levels(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.levels(t)

    def predict(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        alpha, sigma = self.levels(t)
        answers = []
        for condition in conditions:
            with torch.no_grad():
                expected = self._expected(condition)
                rows = zip(x_t.float(), expected, alpha, sigma, strict=True)
                clean = torch.stack([posterior(*row).clean for row in rows])
            noise = (x_t - per_view(alpha) * clean) / per_view(sigma)
            if self.correction is not None:
                noise = noise + per_view(alpha) * self.correction(x_t, clean, t)
            answers.append(noise)
        return torch.stack(answers)

    def read(self, texts: list[str]) -> Condition:
        """Texts as conditions: one token that says which object, colours, materials and views are meant."""
        known = self.vocabulary
        fields = (self._names, known.colours, known.materials, VIEWS)
        tokens = torch.zeros(len(texts), 1, sum(map(len, fields)))
        for row, text in enumerate(texts):
            subject, words = known.subject(text), set(split(text.replace("gray", "grey")))
            said = [subject == name for name in self._names]
            said += [word in words for field in fields[1:] for word in field]
            tokens[row, 0] = torch.tensor(said, dtype=torch.float32)
        tokens = tokens.to(self.device)
        return Condition(tokens, tokens[..., : len(self._names)].sum(-1) > 0, None)

    def check(self, text: str) -> str | None:
        """A remark about words that will be passed over and objects that are too many, or None.

        Raises:
            ValueError: the text names no object the prior knows.
        """
        return self.vocabulary.check(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.codec.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.codec.decode(latents)

    def candidates(self, text: str) -> tuple[Candidate, ...]:
        """The models a text may mean, in their colours; none where it names no object."""
        return self._candidates(tuple(self.read([text]).tokens[0, 0].tolist()))

    def twin(self) -> Twin:
        """This prior and a correction of its velocity, which says nothing yet; see `guidance.critics.lora`."""
        twin = MiniPrior(self.packed, self.expected, self.codec, self.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            twin.correction = Correction(len(self.expected.spread)).to(self.device)
        return Twin(twin, twin.correction, twin.correction.layers)

    def to(self, device: torch.device | str) -> MiniPrior:
        self.expected.to(device)
        self.codec.to(device)
        for cached in (self._model, self._candidates, self._around):
            cached.cache_clear()
        return self

    def components(
        self, rgba: Float[Tensor, "K 4 S S"], log_shares: Float[Tensor, " K"], variance: Tensor | None = None
    ) -> Components:
        """Pictures (colour times opacity, and opacity) as what may have been drawn; without a variance, of splats."""
        through = 1 - rgba[:, 3:]
        black = self.codec.encode(torch.zeros_like(rgba[:1, :3]))
        planes = torch.eye(3).to(rgba)[None, :, :, None, None] * through[:, None]
        seen = (self.codec.encode(planes.flatten(0, 1)) - black).unflatten(0, (-1, 3))
        means = self.codec.encode(rgba[:, :3] + 0.5 * through)
        if variance is None:
            variance = LEAST_VARIANCE + covered(rgba, self.codec.patch) * self.expected.spread[:, None, None]
        return Components(means, seen, variance.expand(means.shape), log_shares)

    def _expected(self, condition: Condition) -> list[Components]:
        """What is expected of every picture."""
        told = [tuple(row) for row in condition.tokens[:, 0].tolist()]
        drawn: dict[int, Components] = {}
        models, rows, cameras = [], [], []
        for row, said in enumerate(told):
            found = self._candidates(said)
            if not found:
                drawn[row] = self._empty()
            elif condition.camera is None:
                drawn[row] = self._around(said)
            else:
                models += [candidate.model for candidate in found]
                cameras += [condition.camera[row]] * len(found)
                rows.append((row, found))
        if rows:
            rgba = pictures(models, torch.stack(cameras), self.picture_size)
            for (row, found), some in zip(rows, rgba.split([len(found) for _, found in rows]), strict=True):
                shares = torch.tensor([candidate.log_share for candidate in found], device=self.device)
                drawn[row] = self.components(some, shares)
        return [drawn[row] for row in range(len(told))]

    def _empty(self) -> Components:
        nothing = torch.zeros(1, device=self.device)
        return self.components(self.expected.picture[None], nothing, self.expected.variance)

    def _from_everywhere(self, said: tuple[float, ...]) -> Components:
        """The candidates of a text from all sides, or from those that its words for the view leave."""
        wanted = said[-len(VIEWS) :]
        rows = [(azimuth * math.tau / AZIMUTHS, elevation) for elevation in ELEVATIONS for azimuth in range(AZIMUTHS)]
        rows += [(azimuth * math.tau / 4, 1.2) for azimuth in range(4)]
        weights = [wanted[VIEWS.index(view_word(*row))] if any(wanted) else 1.0 for row in rows]
        kept = [(row, math.log(weight)) for row, weight in zip(rows, weights, strict=True) if weight > 0]
        every = [(c.model, row, c.log_share + share) for c in self._candidates(said) for row, share in kept]
        camera = torch.tensor([row for _, row, _ in every], device=self.device)
        rgba = pictures([model for model, _, _ in every], camera, self.picture_size)
        shares = torch.tensor([share for _, _, share in every], device=self.device)
        return self.components(rgba, shares)

    def _picked(self, said: tuple[float, ...]) -> tuple[Candidate, ...]:
        """The models of an object, narrowed by materials and colours wherever that leaves any."""
        known, names = self.vocabulary, len(self._names)
        subjects = [name for name, share in zip(self._names, said, strict=False) if share > 0]
        colours = [word for word, share in zip(known.colours, said[names:], strict=False) if share > 0]
        materials = {w for w, s in zip(known.materials, said[names + len(known.colours) :], strict=False) if s > 0}
        materials = {"wood" if word == "wooden" else word for word in materials}
        rows = [number for number, row in enumerate(self.packed.known) if row.name in subjects]
        rows = [n for n in rows if materials & set(self.packed.known[n].materials)] or rows
        if colours:
            own = [n for n in rows if set(colours) & set(self.packed.known[n].colours)]
            tinted = [n for n in rows if self.packed.known[n].tintable]
            picked = [(n, "") for n in own] or [(n, colour) for n in tinted for colour in colours]
        else:
            picked = []
        picked = picked or [(n, "") for n in rows]
        return tuple(Candidate(self._model(n, paint), -math.log(len(picked))) for n, paint in picked)

    def _painted(self, number: int, paint: str) -> Splats:
        """A model, in another colour if one is named."""
        model = self.packed.model(number).to(self.device)
        if not paint:
            return model
        shade = (
            model.colours
            @ torch.tensor(_LUMINANCE, device=self.device)
            / max(self.packed.known[number].brightness, 0.05)
        )
        colour = self.expected.paints[self.vocabulary.colours.index(paint)]
        return replace(model, colours=(shade.clamp(max=1.15)[:, None] * colour).clamp(max=1.0))

    def save(self, folder: Path) -> None:
        """Writes the folder."""
        channels, grid, _ = self.expected.variance.shape
        files = {
            "model_index.json": {"_class_name": CLASS},
            "config.json": {"channels": channels, "patch": self.codec.patch, "grid": grid},
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, row in files.items():
            (folder / name).write_text(json.dumps(row, indent=2) + "\n")
        for name, module in (("expected", self.expected), ("vae", self.codec)):
            (folder / name).mkdir(exist_ok=True)
            save_file({k: v.half().contiguous() for k, v in module.state_dict().items()}, folder / name / _WEIGHTS)
        (folder / "tokenizer").mkdir(exist_ok=True)
        self.vocabulary.save(folder / "tokenizer" / "vocabulary.json")
        self.packed.save(folder)

    @staticmethod
    def load(folder: Path = FOLDER, device: torch.device | str = "cpu") -> MiniPrior:
        """Opens a folder that `save` wrote.

        Raises:
            FileNotFoundError: a part of it is missing.
            ValueError: the folder holds another kind of model, or a part of it is damaged.
        """
        try:
            kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
            row = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            channels, patch, grid = (int(row[name]) for name in ("channels", "patch", "grid"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is damaged: expected a {CLASS} with its sizes ({error})") from None
        if kind != CLASS:
            raise ValueError(f"{folder} holds a {kind}, expected {CLASS}")
        vocabulary = Vocabulary.load(folder / "tokenizer" / "vocabulary.json")
        expected, codec = Expected(channels, patch, grid, len(vocabulary.colours)), PatchCodec(channels, patch)
        for name, module in (("expected", expected), ("vae", codec)):
            fill(module, read_tensors(folder / name / _WEIGHTS), folder / name / _WEIGHTS)
        return MiniPrior(Packed.load(folder), expected, codec, vocabulary).to(device)


def covered(rgba: Float[Tensor, "K 4 S S"], patch: int) -> Float[Tensor, "K 1 G G"]:
    """How opaque patches are where they are most so."""
    return torch.nn.functional.max_pool2d(rgba[:, 3:], patch)


def is_mini(folder: Path) -> bool:
    """Whether a folder says that it holds a prior of this kind."""
    file = folder / "model_index.json"
    return file.is_file() and f'"{CLASS}"' in file.read_text(encoding="utf-8", errors="replace")
