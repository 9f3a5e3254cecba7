"""What the embedded prior is made from: the list of objects, their colours, the corpus, pictures, the card."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from guidance.priors.base import make_rng
from guidance.priors.mini.vocabulary import STOP_WORDS, split_words
from renderers.cameras import DISTANCE
from sds3d.mini_training import catalogue, model_card
from sds3d.mini_training.captions import MATERIALS, caption, vocabulary
from sds3d.mini_training.catalogue import LICENCES, Object, objects
from sds3d.mini_training.colors import COLORS, brightness, dominant, named
from sds3d.mini_training.corpus import Corpus, file_of, judge_cameras, prior_cameras, read_entries
from sds3d.mini_training.dataset import CorpusDataset, backgrounds
from sds3d.mini_training.evaluate import Evaluation, Scores
from tests.support.sds3d.sphere_corpus import ENTRIES, draw, entry

# --- the list of objects ---


def test_every_phrase_means_one_object() -> None:
    phrases = [phrase for thing in objects() for phrase in (thing.name, *thing.synonyms)]
    assert len(phrases) == len(set(phrases))
    assert len({thing.name for thing in objects()}) >= 150


def test_phrases_are_words_that_are_read() -> None:
    for thing in objects():
        for phrase in (thing.name, *thing.synonyms):
            assert phrase == phrase.strip().lower() and split_words(phrase) and len(split_words(phrase)) <= 4, phrase
            assert not set(split_words(phrase)) & STOP_WORDS


def test_the_list_says_all_of_every_object() -> None:
    assert all(thing.model and thing.wave >= 1 for thing in objects())
    assert min(thing.wave for thing in objects()) == 1
    assert len({thing.model for thing in objects()}) == len(objects()), "no model stands for two names"
    files = [file_of(Path(), thing.name) for thing in objects()]
    assert len(set(files)) == len(files), "no two objects share a file"


def test_every_object_is_its_own_subject() -> None:
    known = vocabulary([entry(thing.name, synonyms=list(thing.synonyms)) for thing in objects()])
    for thing in objects():
        for phrase in (thing.name, *thing.synonyms):
            assert known.subject(f"a red {phrase}") == thing.name, phrase


FURNITURE = """
id#1=bear
name#1=Teddy \\u00e9
model#1=/models/bear/bear.obj
modelRotation#1=0 0 1 0 1 0 \\
 -1 0 0
creator#1=Jane
name#2=Horse
model#2=/models/horse/horse.obj
name#3=not a model
"""


def test_a_catalogue_gives_model_creator_and_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "BlendSwap-CC-0.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", FURNITURE.encode("latin1"))
    chosen = (Object("teddy bear", (), "bear", True, 1), Object("horse", (), "models/horse", False, 1))
    monkeypatch.setattr(catalogue, "objects", lambda: chosen)
    found = catalogue.models(tmp_path)
    bear, horse = found["teddy bear"], found["horse"]
    assert (bear.title, bear.creator, bear.licence, bear.path) == ("Teddy é", "Jane", "CC0 1.0", "models/bear/bear.obj")
    assert bear.rotation.tolist() == [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert horse.creator == "unknown" and horse.rotation.tolist() == np.eye(3).tolist()
    monkeypatch.setattr(catalogue, "objects", lambda: (*chosen, Object("mug", (), "mug", True, 1)))
    with pytest.raises(FileNotFoundError, match="the models of mug are not in"):
        catalogue.models(tmp_path)


def test_without_models_the_way_to_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get download sweethome3d-furniture"):
        catalogue.models(tmp_path)


# --- colours ---


@pytest.mark.parametrize("name", COLORS)
def test_every_colour_has_its_own_name(name: str) -> None:
    assert named(COLORS[name]) == name
    assert dominant(np.tile(np.uint8([*(255 * np.array(COLORS[name])), 255]), (1, 8, 8, 1))) == [name]


def test_every_colour_there_is_has_a_name() -> None:
    steps = np.linspace(0, 1, 9)
    assert {named((r, g, b)) for r in steps for g in steps for b in steps} == set(COLORS)


def test_two_colours_are_named_the_larger_first_and_transparency_not_at_all() -> None:
    albedo = np.zeros((1, 10, 10, 4), np.uint8)
    albedo[:, :, :6] = [200, 20, 20, 255]
    albedo[:, :, 6:] = [30, 70, 200, 255]
    assert dominant(albedo) == ["red", "blue"]
    albedo[:, :, :6, 3] = 100
    assert dominant(albedo) == ["blue"]
    albedo[..., 3] = 0
    assert dominant(albedo) == [] and brightness(albedo) == 1.0


def test_brightness_is_that_of_the_brighter_part() -> None:
    albedo = np.full((1, 10, 10, 4), 255, np.uint8)
    assert brightness(albedo) == pytest.approx(1)
    albedo[..., :3] = 51
    assert brightness(albedo) == pytest.approx(0.2)


# --- a corpus of three objects ---


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("corpus"))


def test_entries_come_back(corpus: Path, tmp_path: Path) -> None:
    assert read_entries(corpus) == ENTRIES
    with pytest.raises(FileNotFoundError, match=r"no corpus in .*; draw one with: sds3d prior corpus"):
        read_entries(tmp_path)


def test_cameras_of_the_prior_are_those_of_runs() -> None:
    cameras = prior_cameras(Corpus(views=200), make_rng(0))
    degrees = torch.rad2deg(cameras.elevation)
    assert -20 <= float(degrees.min()) < -15 and 60 < float(degrees.max()) <= 70
    assert float(((degrees > -10) & (degrees < 40)).float().mean()) == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(cameras.positions.norm(dim=-1), torch.full((200,), DISTANCE))
    sectors = torch.floor((cameras.azimuth % math.tau) / math.tau * 200).long().sort().values
    assert (sectors - torch.arange(200)).abs().max() <= 1, "azimuths are spread evenly"


def test_cameras_of_the_judge_are_others_but_see_the_whole_object() -> None:
    cameras = judge_cameras(Corpus(judge_views=100), make_rng(0))
    distance = cameras.positions.norm(dim=-1)
    assert float(distance.std()) > 0.3 and float(cameras.fov_y.std()) > 0.05
    # Tilted about the axis through the middle: the middle stays in the middle.
    middle = torch.linalg.inv(cameras.c2w) @ torch.tensor([0.0, 0, 0, 1])
    torch.testing.assert_close(middle[:, :2], torch.zeros(100, 2), rtol=0, atol=1e-5)
    size = torch.asin(1 / distance) / (cameras.fov_y / 2)
    assert bool((size < 1.04).all()) and bool((size > 0.7).all())
    turned = cameras.c2w[:, :3, :3]
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3).expand(100, 3, 3), rtol=0, atol=1e-5)


def test_captions_hold_known_words_and_name_the_paint() -> None:
    rng, known = np.random.default_rng(0), vocabulary(ENTRIES)
    texts = set()
    for number in range(600):
        thing = ENTRIES[number % 3]
        painted, view = ("blue" if number % 2 else None), ("back" if number % 5 == 0 else None)
        text = caption(thing, painted, view, rng)
        assert known.unknown_words(text) == [] and known.subject(text) == thing.name
        assert (painted or "") in text and ("red" not in text or not painted)
        assert text.endswith(", back view") == (view is not None)
        texts.add(text)
    assert {"teddy", "teddy bear", "red teddy bear", "wood mug", "red wood mug, back view"} <= texts
    assert set(MATERIALS) <= set(known.materials)


@pytest.fixture(scope="module")
def pictures(corpus: Path) -> CorpusDataset:
    return CorpusDataset(corpus, ENTRIES, vocabulary(ENTRIES), 12)


def test_the_same_chance_gives_the_same_batch(pictures: CorpusDataset) -> None:
    first, second = (pictures(20, np.random.default_rng(4)) for _ in range(2))
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


def test_pictures_are_objects_before_backgrounds(pictures: CorpusDataset) -> None:
    batch = pictures(60, np.random.default_rng(1))
    assert batch.rgb.shape == (60, 3, 96, 96) and batch.rgb.dtype == torch.float32
    assert float(batch.rgb.min()) >= 0 and float(batch.rgb.max()) <= 1
    torch.testing.assert_close(batch.rgb[:, :, 0, 0], batch.background[:, :, 0, 0])
    torch.testing.assert_close(batch.composite(0.0), batch.foreground[:, :3])
    middle = batch.rgb[:, :, 48, 48]
    torch.testing.assert_close(middle, batch.composite(0.3)[:, :, 48, 48])


def test_conditions_are_dropped_now_and_then(pictures: CorpusDataset) -> None:
    batch = pictures(800, np.random.default_rng(2))
    spoken = batch.mask.any(1)
    assert float((~spoken).float().mean()) == pytest.approx(0.1, abs=0.03)
    assert float((~batch.camera_known[spoken]).float().mean()) == pytest.approx(0.12, abs=0.03)
    both = ~spoken & ~batch.camera_known
    assert 0.02 < float(both.float().mean()) < 0.08
    assert not bool(batch.words[~batch.mask].any())
    assert float(batch.camera[:, 0].abs().max()) <= math.pi + 1e-5


def test_a_painted_object_has_the_colour_of_its_caption(pictures: CorpusDataset) -> None:
    known = vocabulary(ENTRIES)
    green, seen = known.token_ids["green"], 0
    batch = pictures(500, np.random.default_rng(3))
    for row in torch.nonzero((batch.words == green).any(1))[:, 0].tolist():
        r, g, b = batch.rgb[row, :, 48, 48].tolist()
        assert g > r and g > b
        seen += 1
    assert seen > 5


def test_a_third_of_the_backgrounds_is_white_and_a_third_grey() -> None:
    colours = backgrounds(6000, np.random.default_rng(0))
    grey = np.ptp(colours, axis=1) == 0
    white = (colours == 1).all(1)
    assert white.mean() == pytest.approx(1 / 3, abs=0.03) and grey.mean() == pytest.approx(2 / 3, abs=0.03)


# --- card and credits ---


def test_credits_name_every_model_and_creator() -> None:
    text = model_card.notice(ENTRIES)
    for thing in ENTRIES:
        assert f'{thing.name}: "{thing.title}" by {thing.creator}, {thing.licence}' in text
    assert all(f"{licence[:3]}" in text for licence in LICENCES.values())
    assert "creativecommons.org/licenses/by/3.0" in text and "publicdomain/zero/1.0" in text


def test_the_card_counts_only_what_was_trained(tmp_path: Path) -> None:
    marks = Scores(0.8125, 0.95, 7.5)
    evaluation = Evaluation(marks, {"teddy bear": marks, "horse": marks}, 8, 2.0, 20, 3)
    text = model_card.card(ENTRIES, ["teddy bear", "horse"], 31, 1234, evaluation)
    model_card.write(tmp_path, ENTRIES, text, evaluation)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: ") and "81.2%" in text and "7.5 degrees" in text and "1234 pictures" in text
    assert "2 kinds of objects" in text and "1 under CC0, 1 under CC BY 3.0" in text
    assert text.endswith("horse, teddy bear\n")
    assert json.loads((tmp_path / "marks.json").read_text())["overall"]["recall_at_1"] == 0.8125
    assert "Élise" in (tmp_path / "NOTICE").read_text(encoding="utf-8")
    assert "## Marks" not in model_card.card(ENTRIES, ["mug"], 1, 1, None)
