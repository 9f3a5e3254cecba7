"""No number crashes the kernels of volumes and meshes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("kernels")
def test_no_number_crashes_the_kernels() -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.support.renderers.kernel_fuzzing"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
