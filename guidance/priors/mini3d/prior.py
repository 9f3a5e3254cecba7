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

from guidance.priors.base import Condition, LoRATarget, expand_like_latents
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.vocabulary import Vocabulary, split_words
from guidance.priors.mini3d.mixture import MixtureComponents, posterior
from guidance.priors.mini3d.splat_models import PackedSplats
from guidance.priors.mini3d.splat_rendering import SplatModel, render_splats
from guidance.priors.mini3d.velocity_correction import VelocityCorrection
from guidance.priors.schedule import ScaledLinearSchedule
from guidance.priors.views import VIEW_LABELS, view_label
from guidance.priors.weights import load_module_weights, read_tensors

FOLDER = Path(__file__).parent / "weights"
"""Where the shipped splats are."""
CLASS_NAME = "Mini3DPrior"
NUM_AZIMUTHS, ELEVATIONS = 24, (0.05, 0.5)
"""Sides that are expected where the camera is left out; elevations in radians, and one view from overhead."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"
MIN_VARIANCE = 1e-3
"""Of a latent, where nothing is drawn."""
_LUMINANCE = (0.299, 0.587, 0.114)


class ImageStatistics(nn.Module):
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
class SplatCandidate:
    """A model in one of its colours, and the logarithm of how likely it is."""

    model: SplatModel
    log_weight: float


class Mini3DPrior:
    """A text- and camera-conditioned `Prior` in closed form around splats."""

    camera_conditioned = True
    schedule = ScaledLinearSchedule()

    def __init__(
        self, packed: PackedSplats, statistics: ImageStatistics, codec: PatchCodec, vocabulary: Vocabulary
    ) -> None:
        self.packed, self.vocabulary = packed, vocabulary
        self.statistics, self.codec = statistics.requires_grad_(False), codec.requires_grad_(False)
        self.correction: VelocityCorrection | None = None
        """What is added to the velocity; only a critic has one."""
        self._object_names = tuple(vocabulary.objects)
        self._cached_model = lru_cache(64)(self._recolor)
        self._cached_candidates = lru_cache(256)(self._select_models)
        self._cached_orbit = lru_cache(8)(self._orbit_components)

    @property
    def image_size(self) -> int:
        return self.statistics.picture.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.statistics.picture.device

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        return self.schedule.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        alpha, sigma = self.alpha_sigma(t)
        noise_preds = []
        for condition in conditions:
            with torch.no_grad():
                components = self._components_for(condition)
                rows = zip(x_t.float(), components, alpha, sigma, strict=True)
                x0_pred = torch.stack([posterior(*row).x0_pred for row in rows])
            noise = (x_t - expand_like_latents(alpha) * x0_pred) / expand_like_latents(sigma)
            if self.correction is not None:
                noise = noise + expand_like_latents(alpha) * self.correction(x_t, x0_pred, t)
            noise_preds.append(noise)
        return torch.stack(noise_preds)

    def encode_prompt(self, texts: list[str]) -> Condition:
        """Texts as conditions: one token that says which object, colours, materials and views are meant."""
        vocabulary = self.vocabulary
        fields = (self._object_names, vocabulary.colors, vocabulary.materials, VIEW_LABELS)
        tokens = torch.zeros(len(texts), 1, sum(map(len, fields)))
        for row, text in enumerate(texts):
            subject, words = vocabulary.subject(text), set(split_words(text.replace("gray", "grey")))
            flags = [subject == name for name in self._object_names]
            flags += [word in words for field in fields[1:] for word in field]
            tokens[row, 0] = torch.tensor(flags, dtype=torch.float32)
        tokens = tokens.to(self.device)
        return Condition(tokens, tokens[..., : len(self._object_names)].sum(-1) > 0, None)

    def validate_prompt(self, text: str) -> str | None:
        """A remark about words that will be passed over and objects that are too many, or None.

        Raises:
            ValueError: the text names no object the prior knows.
        """
        return self.vocabulary.validate_prompt(text)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.codec.encode(rgb)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return self.codec.decode(latents)

    def candidates(self, text: str) -> tuple[SplatCandidate, ...]:
        """The models a text may mean, in their colours; none where it names no object."""
        return self._cached_candidates(tuple(self.encode_prompt([text]).text_embeds[0, 0].tolist()))

    def lora_target(self) -> LoRATarget:
        """This prior and a correction of its velocity, which says nothing yet; see `guidance.critics.lora`."""
        copy = Mini3DPrior(self.packed, self.statistics, self.codec, self.vocabulary)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            copy.correction = VelocityCorrection(len(self.statistics.spread)).to(self.device)
        return LoRATarget(copy, copy.correction, copy.correction.target_modules)

    def to(self, device: torch.device | str) -> Mini3DPrior:
        self.statistics.to(device)
        self.codec.to(device)
        for cached in (self._cached_model, self._cached_candidates, self._cached_orbit):
            cached.cache_clear()
        return self

    def components(
        self, rgba: Float[Tensor, "K 4 S S"], log_weights: Float[Tensor, " K"], variance: Tensor | None = None
    ) -> MixtureComponents:
        """Pictures (colour times opacity, and opacity) as what may have been drawn; without a variance, of splats."""
        transparency = 1 - rgba[:, 3:]
        black = self.codec.encode(torch.zeros_like(rgba[:1, :3]))
        planes = torch.eye(3).to(rgba)[None, :, :, None, None] * transparency[:, None]
        background_basis = (self.codec.encode(planes.flatten(0, 1)) - black).unflatten(0, (-1, 3))
        means = self.codec.encode(rgba[:, :3] + 0.5 * transparency)
        if variance is None:
            variance = MIN_VARIANCE + patch_opacity(rgba, self.codec.patch) * self.statistics.spread[:, None, None]
        return MixtureComponents(means, background_basis, variance.expand(means.shape), log_weights)

    def _components_for(self, condition: Condition) -> list[MixtureComponents]:
        """What is expected of every picture."""
        token_rows = [tuple(row) for row in condition.text_embeds[:, 0].tolist()]
        components: dict[int, MixtureComponents] = {}
        models, rows, cameras = [], [], []
        for row, flags in enumerate(token_rows):
            candidates = self._cached_candidates(flags)
            if not candidates:
                components[row] = self._uncond_components()
            elif condition.camera is None:
                components[row] = self._cached_orbit(flags)
            else:
                models += [candidate.model for candidate in candidates]
                cameras += [condition.camera[row]] * len(candidates)
                rows.append((row, candidates))
        if rows:
            rgba = render_splats(models, torch.stack(cameras), self.image_size)
            for (row, candidates), images in zip(
                rows, rgba.split([len(candidates) for _, candidates in rows]), strict=True
            ):
                log_weights = torch.tensor([candidate.log_weight for candidate in candidates], device=self.device)
                components[row] = self.components(images, log_weights)
        return [components[row] for row in range(len(token_rows))]

    def _uncond_components(self) -> MixtureComponents:
        log_weight = torch.zeros(1, device=self.device)
        return self.components(self.statistics.picture[None], log_weight, self.statistics.variance)

    def _orbit_components(self, flags: tuple[float, ...]) -> MixtureComponents:
        """The candidates of a text from all sides, or from those that its words for the view leave."""
        view_flags = flags[-len(VIEW_LABELS) :]
        rows = [
            (azimuth * math.tau / NUM_AZIMUTHS, elevation)
            for elevation in ELEVATIONS
            for azimuth in range(NUM_AZIMUTHS)
        ]
        rows += [(azimuth * math.tau / 4, 1.2) for azimuth in range(4)]
        weights = [view_flags[VIEW_LABELS.index(view_label(*row))] if any(view_flags) else 1.0 for row in rows]
        poses = [(row, math.log(weight)) for row, weight in zip(rows, weights, strict=True) if weight > 0]
        entries = [
            (c.model, row, c.log_weight + log_weight)
            for c in self._cached_candidates(flags)
            for row, log_weight in poses
        ]
        camera = torch.tensor([row for _, row, _ in entries], device=self.device)
        rgba = render_splats([model for model, _, _ in entries], camera, self.image_size)
        log_weights = torch.tensor([log_weight for _, _, log_weight in entries], device=self.device)
        return self.components(rgba, log_weights)

    def _select_models(self, flags: tuple[float, ...]) -> tuple[SplatCandidate, ...]:
        """The models of an object, narrowed by materials and colours wherever that leaves any."""
        vocabulary, names = self.vocabulary, len(self._object_names)
        subjects = [name for name, flag in zip(self._object_names, flags, strict=False) if flag > 0]
        colors = [word for word, flag in zip(vocabulary.colors, flags[names:], strict=False) if flag > 0]
        materials = {
            w for w, s in zip(vocabulary.materials, flags[names + len(vocabulary.colors) :], strict=False) if s > 0
        }
        materials = {"wood" if word == "wooden" else word for word in materials}
        rows = [number for number, row in enumerate(self.packed.infos) if row.name in subjects]
        rows = [n for n in rows if materials & set(self.packed.infos[n].materials)] or rows
        if colors:
            matching = [n for n in rows if set(colors) & set(self.packed.infos[n].colors)]
            tinted = [n for n in rows if self.packed.infos[n].tintable]
            selected = [(n, "") for n in matching] or [(n, color) for n in tinted for color in colors]
        else:
            selected = []
        selected = selected or [(n, "") for n in rows]
        return tuple(
            SplatCandidate(self._cached_model(n, color_name), -math.log(len(selected))) for n, color_name in selected
        )

    def _recolor(self, number: int, color_name: str) -> SplatModel:
        """A model, in another colour if one is named."""
        model = self.packed.unpack(number).to(self.device)
        if not color_name:
            return model
        luminance = (
            model.colors
            @ torch.tensor(_LUMINANCE, device=self.device)
            / max(self.packed.infos[number].brightness, 0.05)
        )
        target_color = self.statistics.paints[self.vocabulary.colors.index(color_name)]
        return replace(model, colors=(luminance.clamp(max=1.15)[:, None] * target_color).clamp(max=1.0))

    def save(self, folder: Path) -> None:
        """Writes the folder."""
        channels, grid, _ = self.statistics.variance.shape
        files = {
            "model_index.json": {"_class_name": CLASS_NAME},
            "config.json": {"channels": channels, "patch": self.codec.patch, "grid": grid},
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, row in files.items():
            (folder / name).write_text(json.dumps(row, indent=2) + "\n")
        for name, module in (("expected", self.statistics), ("vae", self.codec)):
            (folder / name).mkdir(exist_ok=True)
            save_file({k: v.half().contiguous() for k, v in module.state_dict().items()}, folder / name / _WEIGHTS)
        (folder / "tokenizer").mkdir(exist_ok=True)
        self.vocabulary.save(folder / "tokenizer" / "vocabulary.json")
        self.packed.save(folder)

    @staticmethod
    def load(folder: Path = FOLDER, device: torch.device | str = "cpu") -> Mini3DPrior:
        """Opens a folder that `save` wrote.

        Raises:
            FileNotFoundError: a part of it is missing.
            ValueError: the folder holds another kind of model, or a part of it is damaged.
        """
        try:
            class_name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
            row = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            channels, patch, grid = (int(row[name]) for name in ("channels", "patch", "grid"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is damaged: expected a {CLASS_NAME} with its sizes ({error})") from None
        if class_name != CLASS_NAME:
            raise ValueError(f"{folder} holds a {class_name}, expected {CLASS_NAME}")
        vocabulary = Vocabulary.load(folder / "tokenizer" / "vocabulary.json")
        statistics, codec = ImageStatistics(channels, patch, grid, len(vocabulary.colors)), PatchCodec(channels, patch)
        for name, module in (("expected", statistics), ("vae", codec)):
            load_module_weights(module, read_tensors(folder / name / _WEIGHTS), folder / name / _WEIGHTS)
        return Mini3DPrior(PackedSplats.load(folder), statistics, codec, vocabulary).to(device)


def patch_opacity(rgba: Float[Tensor, "K 4 S S"], patch: int) -> Float[Tensor, "K 1 G G"]:
    """How opaque patches are where they are most so."""
    return torch.nn.functional.max_pool2d(rgba[:, 3:], patch)


def is_mini3d_folder(folder: Path) -> bool:
    """Whether a folder says that it holds a prior of this kind."""
    file = folder / "model_index.json"
    return file.is_file() and f'"{CLASS_NAME}"' in file.read_text(encoding="utf-8", errors="replace")
