"""A run that is stopped while its critic is prepared ends at once, and goes on as if it never was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guidance.priors.mini.prior import MiniPrior
from sds3d.__main__ import main
from sds3d.runs.run_directory import RunDirectory
from sds3d.training.loop import StopSignal
from tests.support.sds3d.command_line import Captured

CRITIC = (
    "--critic.rank",
    "2",
    "--critic.num-prior-samples",
    "5",
    "--critic.num-stages",
    "2",
    "--critic.stage-steps",
    "2",
)
Interrupt = Callable[[int, signal.Signals], list[int]]


@pytest.fixture(autouse=True)
def _no_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out mesh, film and pictures."""
    monkeypatch.setattr(
        "sds3d.cli.commands.finalize", lambda run, record, console, seconds: record.folder / "asset.glb"
    )


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Has a signal come while a question is answered; returns what will hold the number of each question."""
    plain = MiniPrior.predict_noise

    def arrange(number: int, kind: signal.Signals) -> list[int]:
        asked: list[int] = []

        def predict(prior: MiniPrior, *given: Any) -> Any:
            asked.append(len(asked) + 1)
            if len(asked) == number:
                os.kill(os.getpid(), kind)
            return plain(prior, *given)

        monkeypatch.setattr(MiniPrior, "predict_noise", predict)
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
    assert RunDirectory.open(tmp_path / "run").latest()[0]["done"] == 0
    assert main(["resume", str(tmp_path / "run"), "--quiet"]) == 0
    found, wanted = (RunDirectory.open(tmp_path / folder).latest()[0] for folder in ("run", "whole"))
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
    stop = StopSignal(requested=True)
    with pytest.raises(KeyboardInterrupt), stop.interrupt_immediately():
        pytest.fail("it began")
    stop = StopSignal()
    with stop.interrupt_immediately():
        pass
    stop.handle(signal.SIGINT, None)
    assert stop.requested, "outside the first is kept for the next step"
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)
