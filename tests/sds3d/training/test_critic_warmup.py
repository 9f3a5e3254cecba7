"""A run that is stopped while its critic is prepared ends at once, and goes on as if it never was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guidance.priors.mini.prior import EmbeddedPrior
from sds3d.__main__ import main
from sds3d.runs.run_directory import Record
from sds3d.training.loop import Stop
from tests.support.sds3d.command_line import Captured

CRITIC = ("--critic.rank", "2", "--critic.samples", "5", "--critic.stages", "2", "--critic.stage-steps", "2")
Interrupt = Callable[[int, signal.Signals], list[int]]


@pytest.fixture(autouse=True)
def _no_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out mesh, film and pictures."""
    monkeypatch.setattr("sds3d.cli.commands.finish", lambda run, record, console, seconds: record.folder / "asset.glb")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Has a signal come while a question is answered; returns what will hold the number of each question."""
    plain = EmbeddedPrior.predict

    def arrange(number: int, kind: signal.Signals) -> list[int]:
        asked: list[int] = []

        def predict(prior: EmbeddedPrior, *given: Any) -> Any:
            asked.append(len(asked) + 1)
            if len(asked) == number:
                os.kill(os.getpid(), kind)
            return plain(prior, *given)

        monkeypatch.setattr(EmbeddedPrior, "predict", predict)
        return asked

    return arrange


@pytest.mark.parametrize(
    ("name", "question", "kind"),
    [("disback", 3, signal.SIGINT), ("f-vsd", 1, signal.SIGTERM), ("f-vsd", 7, signal.SIGINT)],
    ids=str,
)
def test_it_ends_between_two_questions_and_goes_on_from_the_start(
    name: str,
    question: int,
    kind: signal.Signals,
    small: list[str],
    tmp_path: Path,
    capsys: Captured,
    interrupted: Interrupt,
) -> None:
    words = ["generate", "a red teddy bear", *small, "--objective", name, *CRITIC]
    assert main([*words, "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    before, asked = signal.getsignal(kind), interrupted(question, kind)
    assert main([*words, "--out", str(tmp_path / "run")]) == 130
    assert len(asked) <= question + 1 and signal.getsignal(kind) == before
    out, err = capsys.readouterr()
    assert out.endswith(f"go on with: sds3d resume {tmp_path / 'run'}\n") and err == "\nstopped\n"
    assert Record.open(tmp_path / "run").latest()[0]["done"] == 0
    assert main(["resume", str(tmp_path / "run"), "--quiet"]) == 0
    found, wanted = (Record.open(tmp_path / folder).latest()[0] for folder in ("run", "whole"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_comparison_ends_there_in_good_order(
    prior_folder: Path, tmp_path: Path, capsys: Captured, interrupted: Interrupt
) -> None:
    asked = interrupted(2, signal.SIGINT)
    words = ["compare", "a red teddy bear", "--prior", str(prior_folder), "--device", "cpu", "--out", str(tmp_path)]
    assert main([*words, "--objectives", "disback", "--seeds", "1", "--steps", "2"]) == 130
    assert "stopped with 0 of 1 runs done" in capsys.readouterr().out and len(asked) <= 3
    assert not list((tmp_path / "runs").glob("*"))


def test_who_was_stopped_before_it_began_is_not_prepared() -> None:
    stop = Stop(wanted=True)
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        pytest.fail("it began")
    stop = Stop()
    with stop.at_once():
        pass
    stop.heard(signal.SIGINT, None)
    assert stop.wanted, "outside the first is kept for the next step"
    with pytest.raises(KeyboardInterrupt):
        stop.heard(signal.SIGINT, None)
