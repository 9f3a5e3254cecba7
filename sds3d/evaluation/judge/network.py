"""The judge: a picture -> which object, and from which azimuth.

Shapes: B pictures, N names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from guidance.priors.precision import autocast
from guidance.priors.weights import load_module_weights, read_tensors

SIZE = 64
"""Height and width, pixels, of the pictures the judge looks at."""
FOLDER = Path(__file__).parent
"""Where the shipped weights are."""
_WIDTHS = (32, 64, 128, 256)


class JudgeNetwork(nn.Module):
    """A residual network of four scales with one head for names and one for the azimuth."""

    def __init__(self, names: int) -> None:
        super().__init__()
        before = (3, *_WIDTHS)
        self.entries = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(before, _WIDTHS, strict=False))
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Residual(width) for _ in range(count))
            for width, count in zip(_WIDTHS, (1, 2, 2, 1), strict=True)
        )
        self.norm = nn.LayerNorm(_WIDTHS[-1])
        self.name = nn.Linear(_WIDTHS[-1], names)
        self.azimuth = nn.Linear(_WIDTHS[-1], 2 * names)

    def forward(self, rgb: Float[Tensor, "B 3 64 64"]) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 2"]]:
        """Scores of all names, and sine and cosine of the azimuth for each name it might be."""
        h = (2 * rgb - 1).contiguous(memory_format=torch.channels_last)
        for entry, blocks in zip(self.entries, self.blocks, strict=True):
            h = entry(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h)
        h = self.norm(h.mean((2, 3)))
        return self.name(h), self.azimuth(h).unflatten(-1, (-1, 2))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(h)))
        return h + self.conv2(F.silu(self.norm2(y)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class JudgePrediction:
    """What the judge thinks of B pictures."""

    probability: Float[Tensor, "B N"]
    """Of each name."""
    azimuth: Float[Tensor, "B N"]
    """Radians, if it were that name."""
    certainty: Float[Tensor, "B N"]
    """Length of the mean direction: about 1 where the azimuth is sure, 0 where any is as likely."""

    def rank(self, name: int) -> Tensor:
        """[B] how many names seem likelier than this one; 0 is recognised."""
        return (self.probability > self.probability[:, name : name + 1]).sum(-1)


class Judge:
    """The trained network and the names it knows."""

    def __init__(self, network: JudgeNetwork, names: list[str]) -> None:
        self._network = network.eval().requires_grad_(False)
        self.names = names

    def to(self, device: torch.device | str) -> Judge:
        """This judge with its network moved to a device, where it is shown pictures."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def predict(self, rgb: Float[Tensor, "B 3 H W"]) -> JudgePrediction:
        """An opinion, on the device of the judge, on square pictures in 0..1 of any size and on any device."""
        rgb = rgb.to(self._network.name.weight.device)
        small = F.interpolate(rgb, (SIZE, SIZE), mode="area") if rgb.shape[-1] != SIZE else rgb
        with autocast(rgb.device):
            names, turn = self._network(small)
        turn = turn.float()
        azimuth, certainty = torch.atan2(turn[..., 0], turn[..., 1]), torch.linalg.vector_norm(turn, dim=-1)
        return JudgePrediction(names.float().softmax(-1), azimuth, certainty)

    def save(self, folder: Path) -> None:
        """Writes weights, in half precision, and names."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.half().contiguous() for k, v in self._network.state_dict().items()}, folder / "judge.safetensors"
        )
        (folder / "judge.json").write_text(json.dumps({"names": self.names}, indent=1) + "\n")

    @staticmethod
    def load(folder: Path = FOLDER) -> Judge:
        """What `save` wrote. Raises FileNotFoundError, or ValueError if it is damaged."""
        for name in ("judge.json", "judge.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no judge: {name} is missing")
        names = json.loads((folder / "judge.json").read_text())["names"]
        network = JudgeNetwork(len(names))
        load_module_weights(network, read_tensors(folder / "judge.safetensors"), folder / "judge.safetensors")
        return Judge(network, names)
