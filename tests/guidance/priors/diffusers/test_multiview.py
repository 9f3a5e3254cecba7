"""Multi-view models: several views of one object in one attention, each told its pose."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guidance.conditioning.prompt import Prompt
from guidance.critics.lora import LoRA
from guidance.priors.base import Condition, Joint, Seeing, together
from guidance.priors.diffusers.loading import open_family
from guidance.priors.diffusers.multiview.camera_embedding import features
from guidance.priors.diffusers.multiview.ldm_conversion import name_of, sizes
from guidance.priors.diffusers.multiview.unet import pose_of
from guidance.priors.diffusers.options import Extras
from guidance.priors.diffusers.prior import FamilyPrior, SeeingPrior
from guidance.priors.diffusers.prompts.image_prompt import Resampler
from renderers.cameras import looking_at_origin
from tests.support.guidance.multiview_reference import PICTURE, ROW, Twin
from tests.support.guidance.tiny_models import build, clip_vision

CPU = torch.device("cpu")
SIZE = 16
TEXT = "a teddy bear"
ANGLES = torch.tensor([[0.3 + turn * math.pi / 2, 0.2] for turn in range(4)])


def folder_of(twin: Twin, folder: Path) -> Path:
    """The folder of a multi-view model around a network."""
    build("sd").save_pretrained(folder)
    for file in (folder / "unet").iterdir():
        file.unlink()
    (folder / "unet").rmdir()
    row = json.loads((folder / "model_index.json").read_text())
    row |= {"_class_name": "MVDreamPipeline", "unet": ["mv_unet", "MultiViewUNetModel"]}
    more: dict[str, Tensor] = {}
    if twin.picture:
        row["image_encoder"] = ["transformers", "CLIPVisionModel"]
        clip_vision().save_pretrained(folder / "image_encoder")
        more = {f"image_embed.{name}": value for name, value in reader().state_dict().items()}
    twin.save(folder / "unet", more)
    (folder / "unet" / "mv_unet.py").write_text("raise SystemExit('code of a model was run')")
    (folder / "model_index.json").write_text(json.dumps(row))
    return folder


def reader() -> Resampler:
    made, chance = Resampler(24, 32, PICTURE, depth=2, heads=2), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=chance))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(Twin(), tmp_path_factory.mktemp("models") / "mv")


@pytest.fixture(scope="module")
def prior(folder: Path) -> FamilyPrior:
    return open_family(folder, CPU, Extras(size=SIZE))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> SeeingPrior:
    opened = open_family(
        folder_of(Twin(picture=True), tmp_path_factory.mktemp("models") / "mv"), CPU, Extras(size=SIZE)
    )
    assert isinstance(opened, SeeingPrior)
    return opened


def noise(count: int, seed: int = 3) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def posed(prior: FamilyPrior, groups: int = 1, text: str = TEXT) -> Condition:
    return replace(prior.read([text] * 4 * groups), camera=ANGLES.repeat(groups, 1))


# --- the network ---


@pytest.mark.parametrize("groups", [1, 2])
def test_it_answers_as_its_explicit_twin(groups: int, prior: FamilyPrior) -> None:
    x_t, t = noise(4 * groups), torch.tensor([0.3, 0.8][:groups]).repeat_interleave(4)
    text = posed(prior, groups)
    wanted = Twin()(x_t, t * 999, text.tokens, pose_of(features(ANGLES)).repeat(groups, 1), views=4)
    assert wanted.std() > 0.1
    torch.testing.assert_close(prior.predict(x_t, t, [text])[0], wanted, atol=1e-4, rtol=1e-4)


def test_without_a_camera_nothing_is_added(prior: FamilyPrior) -> None:
    x_t, t, text = noise(4), torch.full((4,), 0.5), prior.read([TEXT] * 4)
    wanted = Twin()(x_t, t * 999, text.tokens, None, views=4)
    torch.testing.assert_close(prior.predict(x_t, t, [text])[0], wanted, atol=1e-4, rtol=1e-4)


def test_one_view_without_a_camera_is_the_plain_network(prior: FamilyPrior, folder: Path) -> None:
    from diffusers import UNet2DConditionModel

    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    names = {name: name_of(name, 1).replace(".inner.", ".") for name in tensors if "camera" not in name}
    plain = UNet2DConditionModel(**sizes(ROW))
    plain.load_state_dict({new: tensors[old] for old, new in names.items()})
    alone, x_t, t = prior.twin(), noise(2), torch.tensor([0.2, 0.7])
    for module in alone.network.modules():
        if hasattr(processor := getattr(module, "processor", None), "views"):
            processor.views = 1
    assert isinstance(alone.denoiser, FamilyPrior)
    alone.denoiser.asking = replace(alone.denoiser.asking, together=1)  # type: ignore[type-var]
    text = prior.read([TEXT] * 2)
    with torch.no_grad():
        wanted = plain(x_t, t * 999, text.tokens).sample
        torch.testing.assert_close(alone.denoiser.predict(x_t, t, [text])[0], wanted, atol=1e-5, rtol=1e-4)


def test_swapped_views_swap_their_answers(prior: FamilyPrior) -> None:
    x_t, t, text, order = noise(4), torch.full((4,), 0.5), posed(prior), torch.tensor([2, 0, 3, 1])
    swapped = prior.predict(x_t[order], t, [text.rows(order)])[0]
    torch.testing.assert_close(swapped, prior.predict(x_t, t, [text])[0][order], atol=1e-5, rtol=1e-4)


def test_views_of_a_group_see_one_another_and_groups_do_not(prior: FamilyPrior) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    before = prior.predict(x_t, t, [text])[0]
    x_t[7] += 1
    moved = (prior.predict(x_t, t, [text])[0] - before).flatten(1).abs().amax(1)
    assert (moved[:4] < 1e-5).all() and (moved[4:7] > 1e-4).all()


def test_the_camera_is_heard(prior: FamilyPrior) -> None:
    x_t, t, text = noise(4), torch.full((4,), 0.5), posed(prior)
    turned = replace(text, camera=ANGLES + torch.tensor([1.0, 0.0]))
    answers = prior.predict(x_t, t, [text, turned, replace(text, camera=None)])
    assert (answers[0] - answers[1]).abs().max() > 1e-3 and (answers[0] - answers[2]).abs().max() > 1e-3
    assert prior.sees_camera and isinstance(prior, Joint) and together(prior) == 4


def test_the_pose_is_that_of_the_renderer_in_the_frame_of_blender() -> None:
    azimuth, elevation = torch.tensor([0.0, 0.7, -2.0, 3.0]), torch.tensor([0.0, 0.4, -0.3, 1.2])
    c2w = looking_at_origin(azimuth, elevation, 8, distance=1.0).c2w
    turn = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    pose = pose_of(features(torch.stack([azimuth, elevation], -1)))
    torch.testing.assert_close(pose.unflatten(1, (4, 4)), turn @ c2w, atol=1e-6, rtol=0)


def test_passes_are_cut_between_groups_alone(prior: FamilyPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    wanted = prior.predict(x_t, t, [text])
    asked, answer = list[int](), type(prior.asking).answer

    def counted(self: object, question: object) -> Tensor:
        asked.append(len(question.x_t))  # type: ignore[attr-defined]
        return answer(self, question)  # type: ignore[arg-type]

    monkeypatch.setattr(type(prior.asking), "answer", counted)
    monkeypatch.setattr(prior, "rows", 3)
    torch.testing.assert_close(prior.predict(x_t, t, [text]), wanted, atol=1e-5, rtol=1e-4)
    assert asked == [4, 4]
    with pytest.raises(ValueError, match="6 views; this model sees 4 of one object at once"):
        prior.predict(x_t[:6], t[:6], [text.rows(torch.arange(6))])


# --- what it is told ---


@pytest.mark.parametrize("direction", ["auto", "words", "none"])
def test_the_camera_is_told_under_every_condition(direction: str, prior: FamilyPrior) -> None:
    prompt = Prompt(TEXT, negative="a horse", direction=direction)  # type: ignore[arg-type]
    wanted = prompt.seen_from(prior, *ANGLES.T)
    for condition in (wanted.text, wanted.empty, wanted.negative, wanted.posed):
        assert condition.camera is not None
        torch.testing.assert_close(condition.camera, ANGLES)


def test_a_critic_learns_in_whole_groups_and_leaves_no_trace(prior: FamilyPrior) -> None:
    x_t, t, text = noise(8), torch.full((8,), 0.5), posed(prior, 2)
    before = prior.predict(x_t, t, [text])
    critic = LoRA(rank=2, camera_dropout=0.5).build(prior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(critic.predict(x_t, t, [text]), before)
    for _ in range(3):
        critic.learn(x_t, text)
    assert (critic.predict(x_t, t, [text]) - before).abs().max() > 1e-4
    assert torch.equal(prior.predict(x_t, t, [text]), before)


# --- pictures ---


def test_a_picture_is_a_view_more_and_tokens_beside_the_text(seeing: SeeingPrior) -> None:
    x_t, t, text = noise(8), torch.tensor([0.3, 0.8]).repeat_interleave(4), posed(seeing, 2)
    rgb = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    image = seeing.look(rgb)
    assert isinstance(seeing, Seeing) and image.shape == (1, PICTURE + 8, 32)
    shown = image[:, PICTURE:].reshape(1, 4, 8, 8)
    groups = []
    for first in (0, 4):
        rows = slice(first, first + 4)
        pose = torch.cat([pose_of(features(ANGLES)), torch.zeros(1, 16)])
        tokens, time = text.tokens[:1].expand(5, -1, -1), t[first].expand(5) * 999
        picture = image[:, :PICTURE].expand(5, -1, -1)
        groups.append(Twin(picture=True)(torch.cat([x_t[rows], shown]), time, tokens, pose, 5, picture)[:4])
    asked = replace(text, image=image.expand(8, -1, -1))
    answers = seeing.predict(x_t, t, [asked, text])
    torch.testing.assert_close(answers[0], torch.cat(groups), atol=1e-4, rtol=1e-4)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_no_picture_is_nothing_to_be_seen(seeing: SeeingPrior) -> None:
    blank = replace(posed(seeing), image=seeing._looker.blank().expand(4, -1, -1))
    x_t, t = noise(4), torch.full((4,), 0.5)
    torch.testing.assert_close(seeing.predict(x_t, t, [blank]), seeing.predict(x_t, t, [posed(seeing)]))
    assert not seeing._looker.blank()[:, PICTURE:].any()


def test_queries_read_more_than_themselves() -> None:
    made, tokens = reader(), torch.randn(1, 5, 24)
    again = Resampler.of(made.state_dict())
    torch.testing.assert_close(again(tokens), made(tokens))
    torch.testing.assert_close(made(tokens[:, [3, 1, 0, 4, 2]]), made(tokens), atol=1e-5, rtol=1e-4)
    assert (made(tokens) - made(0 * tokens)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="layers that read a picture do not fit"):
        Resampler.of({name: value for name, value in made.state_dict().items() if "to_kv" not in name})


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"camera_dim": 12}, "is told 12 numbers of a camera; expected the 16 of a pose"),
        ({"model_channels": None}, "lacks model_channels"),
        ({"num_res_blocks": [1, 2]}, r"has \[1, 2\] blocks"),
        ({"channel_mult": [1, 4]}, "does not fit its configuration"),
        ({"ip_dim": 3}, "disagree about pictures"),
    ],
)
def test_networks_of_another_kind(change: dict[str, object], told: str, tmp_path: Path) -> None:
    folder = folder_of(Twin(), tmp_path / "mv")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=told) as refused:
        open_family(folder, CPU, Extras(size=SIZE))
    assert "\n" not in str(refused.value)


def test_the_layers_that_read_a_camera_start_frozen(prior: FamilyPrior) -> None:
    assert isinstance(prior.asking.network, nn.Module)
    assert not any(parameter.requires_grad for parameter in prior.asking.network.parameters())


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
def test_encoders_that_lack_a_tensor(part: str, tmp_path: Path) -> None:
    folder = folder_of(Twin(picture=True), tmp_path / "mv")
    file = folder / part / "model.safetensors"
    tensors = load_file(file)
    name = tensors.popitem()[0]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part}/model\.safetensors lacks 1 of its tensors, such as ") as refused:
        open_family(folder, CPU, Extras(size=SIZE))
    assert str(refused.value).endswith(name)
