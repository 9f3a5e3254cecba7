"""The book of models as it is told."""

from __future__ import annotations

from pathlib import Path

from sds3d.models.registry import MODELS
from tests.support.sds3d.model_runs import Captured, Folder


def test_the_book_is_told(capsys: Captured, folder: Folder, copy: Path) -> None:
    from sds3d.__main__ import main

    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in MODELS)
    for name, model in MODELS.items():
        assert main(["models", "show", name]) == 0
        told = capsys.readouterr().out
        assert model.licence in told and all(source in told for source in model.sources)
    assert main(["models", "verify", str(copy)]) == 0
    assert capsys.readouterr().out.count("whole") == 3
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert main(["models", "verify", str(copy)]) == 2
    assert main(["models", "show", "sd1.5"]) == 2
    assert "did you mean sd-1.5?" in capsys.readouterr().err
