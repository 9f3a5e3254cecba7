"""Many prompts at once: what can be read is run, and each row that can not says why."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batch import LARGEST, MOST, Batch, Row, pasted, submitted, table
from app.jobs.queue import Jobs

PROMPTS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and not text.strip().startswith(("-", "#"))
)


def allowed(words: object) -> None:
    """Takes everything."""


@given(st.lists(PROMPTS, min_size=1, max_size=8))
def test_every_pasted_line_is_a_run(prompts: list[str]) -> None:
    lines = [" ".join(prompt.split()) for prompt in prompts]
    batch = pasted("\n\n# a remark\n" + "\n".join(lines), check=allowed)
    assert [row.words for row in batch.rows] == [(line,) for line in lines]
    assert batch.wrong == ()
    assert batch.rows[0].number == 4


@given(st.lists(st.tuples(PROMPTS, st.integers(0, 99) | st.none()), min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_every_row_of_a_table_is_a_run(rows: list[tuple[str, int | None]], mark: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark)
    writer.writerow([" Seed", "PROMPT"])
    writer.writerows([["" if seed is None else seed, prompt] for prompt, seed in rows])
    batch = table(text.getvalue().encode("utf-8-sig"), check=allowed)
    assert batch.wrong == ()
    for row, (prompt, seed) in zip(batch.rows, rows, strict=True):
        assert row.words == (prompt.strip(), *(() if seed is None else ("--seed", str(seed))))


@given(st.binary(max_size=300))
def test_no_table_breaks_the_reader(content: bytes) -> None:
    try:
        batch = table(content, check=allowed)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert batch.rows or batch.wrong


def test_cells_take_the_place_of_what_all_are_asked_with() -> None:
    content = b"prompt,seed,negative\na cat,7,\na dog,,a - tail\n"
    first, second = table(content, ("--seed", "1", "--preset", "draft", "--times.first", "0.5", "0.9")).rows
    assert first.words == ("a cat", "--preset", "draft", "--times.first", "0.5", "0.9", "--seed", "7")
    assert second.words[-1] == "--negative=a - tail" and second.words[1:3] == ("--seed", "1")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a cat,x,draft", "row 2: .*seed"),
        ("a cat,1,drift", "row 2: .*did you mean draft"),
        (",1,draft", "row 2: the prompt is empty"),
        ("--out=/tmp,1,draft", "row 2: a prompt does not begin with a dash"),
        ("a cat,/etc,draft", "row 2: .*looks like a path"),
        ("a cat,1,draft,more", "row 2: 4 cells"),
    ],
)
def test_a_bad_row_says_why_and_the_others_are_run(row: str, words: str) -> None:
    batch = table(f"prompt,seed,preset\n{row}\na dog,2,draft\n".encode())
    assert [row.words[0] for row in batch.rows] == ["a dog"]
    (line,) = batch.wrong
    assert re.search(words, line), line


@pytest.mark.parametrize("head", ["seed", "prompt,out", "prompt,prompt", "prompt,extras.lora", "prompt,a b", "prompt,"])
def test_a_table_without_proper_columns_is_refused(head: str) -> None:
    with pytest.raises(ValueError, match="column"):
        table(f"{head}\na cat,1\n".encode())


def test_there_is_an_end_to_prompts() -> None:
    batch = pasted("\n".join(["a cat"] * (MOST + 5)), check=allowed)
    assert len(batch.rows) == MOST and len(batch.wrong) == 1 and f"row {MOST + 1}" in batch.wrong[0]
    with pytest.raises(ValueError, match="KB"):
        pasted("a" * (LARGEST + 1))
    with pytest.raises(ValueError, match="KB"):
        table(b"a" * (LARGEST + 1))
    with pytest.raises(ValueError, match="no prompts"):
        pasted("\n# nothing\n")


def test_a_batch_goes_into_the_queue_as_far_as_there_is_room(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "runs", at_once=0, each=3, waiting=9)
    jobs.submit("generate", ("a cow",), "ann")
    batch = Batch(
        (Row(2, ("a cat",)), Row(3, ("a cat", "--out", "x")), Row(4, ("a dog",)), Row(5, ("a hen",))), ("one",)
    )
    sent = submitted(jobs, batch, "ann")
    assert [jobs.get(id).prompt for id in sent.ids] == ["a cat", "a dog"]
    assert {jobs.get(id).batch for id in sent.ids} == {sent.name} and jobs.get("a-cow").batch == ""
    refused, full = sent.wrong[1:]
    assert sent.wrong[0] == "one" and refused.startswith("row 3: --out") and full.startswith("row 5: you have 3 runs")
    other = submitted(jobs, Batch((Row(1, ("a cat",)), Row(2, ("a dog",))), ()), "bob")
    assert other.name != sent.name and len(other.ids) == 2
    jobs.close()
