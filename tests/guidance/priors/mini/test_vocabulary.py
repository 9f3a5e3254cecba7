"""What the embedded prior reads out of a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance.priors.mini.vocabulary import STOP_WORDS, VIEWS, Vocabulary, split


@pytest.fixture(scope="module")
def told(vocabulary: Vocabulary) -> Vocabulary:
    return vocabulary


def test_every_word_has_a_number_and_the_first_is_empty(told: Vocabulary) -> None:
    assert told.words[0] == ""
    assert [told.number[word] for word in told.words] == list(range(len(told.words)))
    assert len(set(told.words)) == len(told.words)
    assert set(VIEWS) <= set(told.words)


def test_every_name_and_synonym_is_its_own_subject(told: Vocabulary) -> None:
    for name, others in told.names.items():
        for phrase in (name, *others):
            assert told.subject(phrase) == name
            assert told.subject(f"a very detailed Photo of a RED {phrase}, front view") == name
            assert told.unknown(phrase) == []


def test_the_longest_phrase_is_the_subject(told: Vocabulary) -> None:
    assert told.subject("a horse") == "horse"
    assert told.subject("a rocking horse") == "rocking horse"
    assert told.subject("a horse that is rocking") == "horse"
    assert told.subject("a teddy bear on a horse") == "teddy bear"


def test_all_objects_that_are_named_are_found_and_none_inside_another(told: Vocabulary) -> None:
    assert told.subjects("a horse") == ["horse"]
    assert told.subjects("a rocking horse") == ["rocking horse"]
    assert told.subjects("a horse and a teddy bear") == ["teddy bear", "horse"]
    assert told.subjects("a horse beside a rocking horse beside horses") == ["rocking horse", "horse"]
    assert told.subjects("nothing of the kind") == []


def test_parts_of_words_are_no_subject(told: Vocabulary) -> None:
    assert told.subject("a business") is None
    assert told.subject("horsepower") is None


def test_plurals_and_american_grey_are_read(told: Vocabulary) -> None:
    assert told.read("horses") == told.read("horse")
    assert told.read("buses") == told.read("bus")
    assert told.read("gray horse") == told.read("grey horse")
    assert told.subject("gray teddies, no: teddy bears") == "teddy bear"
    assert told.unknown("two gray horses") == ["two"]


def test_unknown_words_are_named_and_passed_over(told: Vocabulary) -> None:
    assert told.unknown("a red dragon of wood") == ["dragon"]
    assert told.read("a red dragon of wood") == told.read("red wood")
    assert told.subject("a red dragon") is None


def test_nearest_words_are_known_ones(told: Vocabulary) -> None:
    assert told.nearest("hors")[0] == "horse"
    assert told.nearest("ared") == ["red"]
    assert all(told.nearest(word) == [] for word in ("dragon", "Ein", "roter", "sessel", "gown", "a", "re"))
    assert told.nearest("armchiar")[0] == "armchair"
    assert told.nearest("xyzzy") == []


@given(st.text(max_size=80))
def test_any_text_is_read(told: Vocabulary, text: str) -> None:
    numbers = told.read(text)
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < len(told.words) for number in numbers)
    assert not set(told.unknown(text)) & set(told.words)


@given(st.permutations(["red", "wooden", "rocking", "horse", "dragon"]))
def test_words_in_any_order_are_the_same_words(told: Vocabulary, words: list[str]) -> None:
    assert set(told.read(" ".join(words))) == set(told.read("red wooden rocking horse"))


def test_words_without_meaning_count_for_nothing(told: Vocabulary) -> None:
    assert told.read(" ".join(STOP_WORDS)) == [] == told.unknown(" ".join(STOP_WORDS))
    assert told.read("a horse, with the horse") == told.read("horse")
    assert split("A Rubik's cube!") == ["rubik's", "cube"]


def test_files_give_back_the_vocabulary(told: Vocabulary, tmp_path: Path) -> None:
    told.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == told


@pytest.mark.parametrize("text", ["", "{", "[]", '{"names": {}}', '{"names": [], "colours": []}'])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "vocabulary.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"vocabulary\.json is damaged"):
        Vocabulary.load(file)


def test_words_of_objects_still_to_come_are_unknown(told: Vocabulary) -> None:
    fewer = Vocabulary({"horse": ()}, told.colours, told.materials, told.words)
    assert fewer.unknown("an armchair") == ["armchair"]
    assert fewer.read("a red armchair") == [told.number["red"]]
