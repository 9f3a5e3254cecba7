"""A tiny embedded prior with random weights, in memory and on disk, and a run small enough for seconds."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import pytest
import torch

from configs.run import RunConfig
from guidance.objectives.differences.sds import SDS
from guidance.priors.mini.network import MiniNetwork, NetworkConfig
from guidance.priors.mini.patch_codec import PatchCodec
from guidance.priors.mini.prior import MiniPrior
from guidance.priors.mini.vocabulary import Vocabulary
from renderers.meshing.extraction import MeshExtractionConfig
from renderers.splats.config import SplatConfig
from sds3d.__main__ import main
from tests.support.sds3d.command_line import flags, short_films


@pytest.fixture(scope="session")
def prior() -> MiniPrior:
    """Pictures of 24 x 24 pixels; knows a teddy bear, a horse and a mug."""
    torch.manual_seed(5)
    names: dict[str, tuple[str, ...]] = {"teddy bear": ("teddy",), "horse": ("pony",), "mug": ()}
    vocabulary = Vocabulary.from_phrases(names, ("red", "blue"), ("wooden",))
    sizes = {"channels": 12, "grid": 4, "convolution_width": 16, "convolution_blocks": 1}
    sizes |= {"width": 32, "depth": 1, "heads": 2, "words": 5, "sketch_width": 48, "sketch_channels": 8}
    network = MiniNetwork(NetworkConfig(len(vocabulary.words), **sizes))
    for parameter in network.parameters():
        parameter.requires_grad_(False).add_(torch.randn(parameter.shape), alpha=0.05)
    codec = PatchCodec(12, 6)
    codec.fit(torch.nn.functional.interpolate(torch.rand(40, 3, 6, 6), (24, 24), mode="bilinear"))
    return MiniPrior(network, codec, vocabulary)


@pytest.fixture(scope="session")
def prior_folder(prior: MiniPrior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    prior.save(folder)
    return folder


@pytest.fixture
def config(prior_folder: Path) -> RunConfig:
    """Eight steps of two views, with growing and pruning on the way; solid enough for a mesh from the start."""
    return RunConfig(
        "a red teddy bear",
        prior=str(prior_folder),
        objective=SDS(2.0, "reconstruction", guidance_rescale=0.5),
        scene=SplatConfig(init_count=400, cap_max=700, init_opacity=0.9, refine_count=3),
        mesh_extraction=MeshExtractionConfig(
            faces=500, texture_size=64, resolution=32, views=3, silhouette_size=32, texture_render_size=48
        ),
        steps=8,
        batch_size=2,
        seed=3,
        device="cpu",
    )


@pytest.fixture
def small(prior_folder: Path) -> list[str]:
    """Flags of a run of seconds."""
    return flags(prior_folder)


@pytest.fixture(scope="session")
def finished(prior_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went well, told in JSON to `told.txt` beside it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    told = io.StringIO()
    with contextlib.redirect_stdout(told), short_films():
        assert main(["generate", "a red teddy bear", *flags(prior_folder), "--out", str(folder), "--json"]) == 0
    (folder.parent / "told.txt").write_text(told.getvalue())
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))
