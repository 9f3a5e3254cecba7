"""The prior that comes with sds3d: small, trained by us, told the text and the camera, at home on a CPU.

Its folder has the layout of a diffusers pipeline: `model_index.json`, `scheduler/`, `unet/`, `vae/`, `tokenizer/`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from guidance.priors.base import Condition, LoRATarget, noise_from_velocity
from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.vocabulary import Vocabulary
from guidance.priors.precision import autocast
from guidance.priors.schedule import ScaledLinearSchedule
from guidance.priors.weights import load_module_weights, read_tensors

FOLDER = Path(__file__).parent / "weights"
"""Where the shipped weights are."""
_CLASS_NAME = "MiniPrior"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class MiniPrior:
    """A text- and camera-conditioned `Prior` whose network predicts velocity."""

    camera_conditioned = True

    def __init__(self, network: MiniNetwork, codec: PatchCodec, vocabulary: Vocabulary) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codec = codec.requires_grad_(False)
        self.vocabulary = vocabulary

    @property
    def image_size(self) -> int:
        size: int = self.network.config.grid * self.codec.patch
        return size

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.position.device
        return device

    def alpha_sigma(self, t: Float[Tensor, " B"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        schedule: ScaledLinearSchedule = self.network.schedule
        return schedule.alpha_sigma(t)

    def predict_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], conditions: list[Condition]
    ) -> Float[Tensor, "K B C h w"]:
        count = len(conditions)
        no_camera = x_t.new_zeros(len(x_t), 2)
        camera = torch.cat([no_camera if c.camera is None else c.camera for c in conditions])
        known = torch.cat([torch.full((len(x_t),), c.camera is not None, device=x_t.device) for c in conditions])
        with autocast(self.device):
            velocity = self.network(
                x_t.repeat(count, 1, 1, 1),
                t.repeat(count),
                torch.cat([c.text_embeds for c in conditions]),
                torch.cat([c.attention_mask for c in conditions]),
                camera,
                known,
            )
        alpha, sigma = self.alpha_sigma(t)
        noise_preds = [noise_from_velocity(x_t, v, alpha, sigma) for v in velocity.float().chunk(count)]
        return torch.stack(noise_preds)

    def encode_prompt(self, texts: list[str]) -> Condition:
        """Texts as conditions; words the prior does not know are left out (see `check`)."""
        max_tokens = self.network.config.words
        input_ids = torch.zeros(len(texts), max_tokens, dtype=torch.long)
        mask = torch.zeros(len(texts), max_tokens, dtype=torch.bool)
        for row, text in enumerate(texts):
            token_ids = self.vocabulary.tokenize(text)[:max_tokens]
            input_ids[row, : len(token_ids)] = torch.tensor(token_ids, dtype=torch.long)
            mask[row, : len(token_ids)] = True
        tokens = self.network.embed(input_ids.to(self.device))
        return Condition(tokens, mask.to(self.device), None)

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

    def lora_target(self) -> LoRATarget:
        """This prior around a copy of its network, whose sketch learns with the rest; see `guidance.critics.lora`."""
        network = copy.deepcopy(self.network)
        network.detach_sketch = False
        # The variances around the sketch are read without calling their layer: nothing added to it would be heard.
        layers = [name for name, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        layers.remove("doubt")
        return LoRATarget(MiniPrior(network, self.codec, self.vocabulary), network, tuple(layers))

    def to(self, device: torch.device | str) -> MiniPrior:
        self.network.to(device)
        self.codec.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Writes the folder; weights in half precision."""
        config = self.network.config
        schedule = self.network.schedule
        files = {
            "model_index.json": {
                "_class_name": _CLASS_NAME,
                "scheduler": ["diffusers", "DDIMScheduler"],
                "unet": ["guidance.priors.mini.network", "MiniNetwork"],
                "vae": ["guidance.priors.mini.patch_codec", "PatchCodec"],
                "tokenizer": ["guidance.priors.mini.vocabulary", "Vocabulary"],
            },
            "scheduler/scheduler_config.json": {
                "_class_name": "DDIMScheduler",
                "num_train_timesteps": schedule.num_train_timesteps,
                "beta_start": schedule.beta_start,
                "beta_end": schedule.beta_end,
                "beta_schedule": "scaled_linear",
                "prediction_type": "v_prediction",
                "clip_sample": False,
                "set_alpha_to_one": False,
            },
            "unet/config.json": {"_class_name": "MiniNetwork", **asdict(config)},
            "vae/config.json": {"_class_name": "PatchCodec", "channels": config.channels, "patch": self.codec.patch},
        }
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
        weights = {name: p.detach().half().contiguous() for name, p in self.network.state_dict().items()}
        save_file(weights, folder / "unet" / _WEIGHTS)
        save_file({k: v.contiguous() for k, v in self.codec.state_dict().items()}, folder / "vae" / _WEIGHTS)
        (folder / "tokenizer").mkdir(exist_ok=True)
        self.vocabulary.save(folder / "tokenizer" / "vocabulary.json")

    @staticmethod
    def load(folder: Path = FOLDER, device: torch.device | str = "cpu") -> MiniPrior:
        """Opens a folder that `save` wrote.

        Raises:
            FileNotFoundError: a part of the model is missing.
            ValueError: the folder holds another kind of model, or a part of it is damaged.
        """
        parts = ["model_index.json", "unet/config.json", f"unet/{_WEIGHTS}", "vae/config.json", f"vae/{_WEIGHTS}"]
        for name in [*parts, "tokenizer/vocabulary.json"]:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} is no embedded prior: {name} is missing")
        (kind,) = _fields(folder / "model_index.json", "_class_name")
        if kind != _CLASS_NAME:
            raise ValueError(f"{folder} holds a {kind}, expected {_CLASS_NAME}")
        values = _fields(folder / "unet" / "config.json", *(f.name for f in fields(NetworkConfig)))
        network = MiniNetwork(NetworkConfig(*values))
        load_module_weights(network, read_tensors(folder / "unet" / _WEIGHTS), folder / "unet" / _WEIGHTS)
        codec = PatchCodec(*_fields(folder / "vae" / "config.json", "channels", "patch"))
        load_module_weights(codec, read_tensors(folder / "vae" / _WEIGHTS), folder / "vae" / _WEIGHTS)
        return MiniPrior(network, codec, MiniPrior.vocabulary_of(folder)).to(device)

    @staticmethod
    def vocabulary_of(folder: Path = FOLDER) -> Vocabulary:
        """The words of a model on disk, without opening the rest. Raises FileNotFoundError."""
        return Vocabulary.load(folder / "tokenizer" / "vocabulary.json")


def _fields(file: Path, *names: str) -> list[Any]:
    """Values of a JSON file. Raises ValueError if it is damaged or lacks one."""
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        return [row[name] for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: expected JSON with {', '.join(names)} ({error})") from None
