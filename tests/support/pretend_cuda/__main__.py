"""`python -m tests.support.pretend_cuda ARGUMENTS`: an sds3d command line on the pretended device."""

from __future__ import annotations

import os
import sys

from tests.support.pretend_cuda.install import install

install()

from sds3d.__main__ import main  # noqa: E402
from tests.support.pretend_cuda.counters import COUNTERS  # noqa: E402

code = main(sys.argv[1:])
if os.environ.get("PRETEND_CUDA_COUNTS"):
    sys.stderr.write(COUNTERS.table() + "\n")
raise SystemExit(code)
