"""Many prompts at once: what can be read is run, and each row that can not says why."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batch import MAX_BYTES, MAX_ROWS, Batch, Row, from_csv, from_lines, submit
from app.jobs.queue import Jobs

PROMPTS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and not text.strip().startswith(("-", "#"))
)


def allow_everything(words: object) -> None:
    """Takes everything."""


@given(st.lists(PROMPTS, min_size=1, max_size=8))
def test_each_line_becomes_a_run(prompts: list[str]) -> None:
    lines = [" ".join(prompt.split()) for prompt in prompts]
    batch = from_lines("\n\n# a remark\n" + "\n".join(lines), check=allow_everything)
    assert [row.args for row in batch.rows] == [(line,) for line in lines]
    assert batch.problems == ()
    assert batch.rows[0].number == 4


@given(st.lists(st.tuples(PROMPTS, st.integers(0, 99) | st.none()), min_size=1, max_size=8), st.sampled_from(",;\t"))
def test_each_csv_row_becomes_a_run(rows: list[tuple[str, int | None]], mark: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark)
    writer.writerow([" Seed", "PROMPT"])
    writer.writerows([["" if seed is None else seed, prompt] for prompt, seed in rows])
    batch = from_csv(text.getvalue().encode("utf-8-sig"), check=allow_everything)
    assert batch.problems == ()
    for row, (prompt, seed) in zip(batch.rows, rows, strict=True):
        assert row.args == (prompt.strip(), *(() if seed is None else ("--seed", str(seed))))


@given(st.binary(max_size=300))
def test_csv_reader_survives_any_bytes(content: bytes) -> None:
    try:
        batch = from_csv(content, check=allow_everything)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert batch.rows or batch.problems


def test_cells_override_common_flags() -> None:
    content = b"prompt,seed,negative_prompt\na cat,7,\na dog,,a - tail\n"
    first, second = from_csv(
        content, ("--seed", "1", "--preset", "draft", "--timesteps.start-range", "0.5", "0.9")
    ).rows
    assert first.args == ("a cat", "--preset", "draft", "--timesteps.start-range", "0.5", "0.9", "--seed", "7")
    assert second.args[-1] == "--negative-prompt=a - tail" and second.args[1:3] == ("--seed", "1")


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
def test_bad_rows_are_reported_and_others_run(row: str, words: str) -> None:
    batch = from_csv(f"prompt,seed,preset\n{row}\na dog,2,draft\n".encode())
    assert [row.args[0] for row in batch.rows] == ["a dog"]
    (line,) = batch.problems
    assert re.search(words, line), line


@pytest.mark.parametrize(
    "head",
    [
        "seed",
        "prompt,out",
        "prompt,prompt",
        "prompt,prior_options.lora",
        "prompt,prior-options.lora",
        "prompt,init_mesh",
        "prompt,a b",
        "prompt,",
    ],
)
def test_rejects_invalid_columns(head: str) -> None:
    with pytest.raises(ValueError, match="column"):
        from_csv(f"{head}\na cat,1\n".encode())


def test_limits_the_number_of_prompts() -> None:
    batch = from_lines("\n".join(["a cat"] * (MAX_ROWS + 5)), check=allow_everything)
    assert len(batch.rows) == MAX_ROWS and len(batch.problems) == 1 and f"row {MAX_ROWS + 1}" in batch.problems[0]
    with pytest.raises(ValueError, match="KB"):
        from_lines("a" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="KB"):
        from_csv(b"a" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="no prompts"):
        from_lines("\n# nothing\n")


def test_batch_submits_until_the_queue_is_full(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "runs", max_parallel=0, max_per_owner=3, max_queued=9)
    jobs.submit("generate", ("a cow",), "ann")
    batch = Batch(
        (Row(2, ("a cat",)), Row(3, ("a cat", "--out", "x")), Row(4, ("a dog",)), Row(5, ("a hen",))), ("one",)
    )
    sent = submit(jobs, batch, "ann")
    assert [jobs.get(id).prompt for id in sent.ids] == ["a cat", "a dog"]
    assert {jobs.get(id).batch for id in sent.ids} == {sent.name} and jobs.get("a-cow").batch == ""
    refused, full = sent.problems[1:]
    assert (
        sent.problems[0] == "one" and refused.startswith("row 3: --out") and full.startswith("row 5: you have 3 runs")
    )
    other = submit(jobs, Batch((Row(1, ("a cat",)), Row(2, ("a dog",))), ()), "bob")
    assert other.name != sent.name and len(other.ids) == 2
    jobs.close()
