"""What the embedded prior reads out of a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.mini.vocabulary import STOP_WORDS, Vocabulary, split_words
from guidance.priors.views import VIEW_LABELS


@pytest.fixture(scope="module")
def any_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    return vocabulary


def test_token_ids_cover_all_words(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.words[0] == ""
    assert [any_vocabulary.token_ids[word] for word in any_vocabulary.words] == list(range(len(any_vocabulary.words)))
    assert len(set(any_vocabulary.words)) == len(any_vocabulary.words)
    assert set(VIEW_LABELS) <= set(any_vocabulary.words)


def test_subject_of_every_phrase(any_vocabulary: Vocabulary) -> None:
    for name, others in any_vocabulary.objects.items():
        for phrase in (name, *others):
            assert any_vocabulary.subject(phrase) == name
            assert any_vocabulary.subject(f"a very detailed Photo of a RED {phrase}, front view") == name
            assert any_vocabulary.unknown_words(phrase) == []


def test_subject_prefers_the_longest_phrase(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.subject("a horse") == "horse"
    assert any_vocabulary.subject("a rocking horse") == "rocking horse"
    assert any_vocabulary.subject("a horse that is rocking") == "horse"
    assert any_vocabulary.subject("a teddy bear on a horse") == "teddy bear"


def test_subjects_finds_all_objects_without_overlap(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.subjects("a horse") == ["horse"]
    assert any_vocabulary.subjects("a rocking horse") == ["rocking horse"]
    assert any_vocabulary.subjects("a horse and a teddy bear") == ["teddy bear", "horse"]
    assert any_vocabulary.subjects("a horse beside a rocking horse beside horses") == ["rocking horse", "horse"]
    assert any_vocabulary.subjects("nothing of the kind") == []


def test_subject_matches_whole_words(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.subject("a business") is None
    assert any_vocabulary.subject("horsepower") is None


def test_plurals_and_gray_are_normalized(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.tokenize("horses") == any_vocabulary.tokenize("horse")
    assert any_vocabulary.tokenize("buses") == any_vocabulary.tokenize("bus")
    assert any_vocabulary.tokenize("gray horse") == any_vocabulary.tokenize("grey horse")
    assert any_vocabulary.subject("gray teddies, no: teddy bears") == "teddy bear"
    assert any_vocabulary.unknown_words("two gray horses") == ["two"]


def test_unknown_words_are_reported_and_skipped(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.unknown_words("a red dragon of wood") == ["dragon"]
    assert any_vocabulary.tokenize("a red dragon of wood") == any_vocabulary.tokenize("red wood")
    assert any_vocabulary.subject("a red dragon") is None


def test_nearest_words_are_known_ones(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.nearest("hors")[0] == "horse"
    assert any_vocabulary.nearest("ared") == ["red"]
    assert all(any_vocabulary.nearest(word) == [] for word in ("dragon", "Ein", "roter", "sessel", "gown", "a", "re"))
    assert any_vocabulary.nearest("armchiar")[0] == "armchair"
    assert any_vocabulary.nearest("xyzzy") == []


@given(st.text(max_size=80))
def test_tokenize_accepts_any_text(any_vocabulary: Vocabulary, text: str) -> None:
    numbers = any_vocabulary.tokenize(text)
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < len(any_vocabulary.words) for number in numbers)
    assert not set(any_vocabulary.unknown_words(text)) & set(any_vocabulary.words)


@given(st.permutations(["red", "wooden", "rocking", "horse", "dragon"]))
def test_tokens_are_independent_of_word_order(any_vocabulary: Vocabulary, words: list[str]) -> None:
    assert set(any_vocabulary.tokenize(" ".join(words))) == set(any_vocabulary.tokenize("red wooden rocking horse"))


def test_stop_words_are_ignored(any_vocabulary: Vocabulary) -> None:
    assert any_vocabulary.tokenize(" ".join(STOP_WORDS)) == [] == any_vocabulary.unknown_words(" ".join(STOP_WORDS))
    assert any_vocabulary.tokenize("a horse, with the horse") == any_vocabulary.tokenize("horse")
    assert split_words("A Rubik's cube!") == ["rubik's", "cube"]


def test_save_and_load_round_trip(any_vocabulary: Vocabulary, tmp_path: Path) -> None:
    any_vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == any_vocabulary


@pytest.mark.parametrize("text", ["", "{", "[]", '{"names": {}}', '{"names": [], "colours": []}'])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "vocabulary.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"vocabulary\.json is damaged"):
        Vocabulary.load(file)


def test_embedding_words_without_object_are_unknown(any_vocabulary: Vocabulary) -> None:
    fewer = Vocabulary({"horse": ()}, any_vocabulary.colors, any_vocabulary.materials, any_vocabulary.words)
    assert fewer.unknown_words("an armchair") == ["armchair"]
    assert fewer.tokenize("a red armchair") == [any_vocabulary.token_ids["red"]]
