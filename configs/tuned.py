"""What the embedded prior is asked with: the recipe of every built-in objective.

The prior is small and sure of itself: scales that suit Stable Diffusion saturate it, and it has nothing to say about
details, so times fall further than is usual. A row says what differs from the defaults of `Recipe`, whose times fall
from 0.5-0.98 to 0.02-0.4. The values won races over ten prompts, in 100 steps and where rates are not 1 once more in
400 (docs/tuning.md), and all of them were run on twelve prompts and judged (docs/objectives.md).
"""

from __future__ import annotations

from configs.recipe import Recipe
from guidance.objectives.differences.asd import ASD
from guidance.objectives.differences.bsd import BSD
from guidance.objectives.differences.csd import CSD
from guidance.objectives.differences.nfsd import NFSD
from guidance.objectives.differences.region_sds import RegionSDS
from guidance.objectives.differences.rfds import RFDS, RFDSRev
from guidance.objectives.differences.sds import SDS
from guidance.objectives.differences.sjc import SJC
from guidance.objectives.edits.dds import DDS
from guidance.objectives.edits.pds import PDS
from guidance.objectives.intervals.csm import CSM
from guidance.objectives.intervals.ism import ISM
from guidance.objectives.intervals.sdi import SDI
from guidance.objectives.intervals.tsm import TSM
from guidance.objectives.variational.disback import DisBack
from guidance.objectives.variational.esd import ESD
from guidance.objectives.variational.f_vsd import FVSD
from guidance.objectives.variational.pg_sb import PGSB
from guidance.objectives.variational.vsd import VSD
from guidance.timesteps import Falling, Linear

LOW = Falling(first=(0.3, 0.9), last=(0.02, 0.2))
"""Less noise than with the default times."""
LOW_FLOW = Falling(first=(0.45, 0.89), last=(0.12, 0.36))
"""The same ratios of noise to signal at the times of a flow-matching prior."""

TUNED: dict[str, Recipe] = {
    "asd": Recipe(ASD(scale=1.0), rates=2.0),
    "bsd": Recipe(BSD(setting="auto", strength=2.0), rates=2.0),
    "csd": Recipe(CSD(empty=(-1.0, -0.4), noise=(0.0, -0.6)), LOW),
    "csm": Recipe(CSM(scale=2.0), LOW, rates=0.2),
    "dds": Recipe(DDS(scale=1.0), LOW, rates=2.0),
    "disback": Recipe(DisBack(scale=4.0, until=0.2), LOW),
    "esd": Recipe(ESD(scale=2.0), LOW),
    "f-vsd": Recipe(FVSD(scale=2.0), LOW),
    "ism": Recipe(ISM(scale=1.0, delta=0.2), LOW),
    "nfsd": Recipe(NFSD(scale=1.0, weighting="reconstruction", switch=0.4), LOW),
    "pds": Recipe(PDS(scale=7.5)),
    "pg-sb": Recipe(PGSB(lowest=1.0, highest=3.0)),
    "regions": Recipe(RegionSDS(scale=1.0), LOW, rates=2.0),
    "rfds": Recipe(RFDS(scale=2.0), LOW_FLOW),
    "rfds-rev": Recipe(RFDSRev(scale=2.0), LOW_FLOW),
    "sdi": Recipe(SDI(scale=1.0, inversion_scale=0.0, eta=0.0), Linear(0.8, 0.02)),
    "sds": Recipe(SDS(scale=2.0, weighting="reconstruction", rescale=0.5)),
    "sjc": Recipe(SJC(scale=2.0), LOW),
    "tsm": Recipe(TSM(scale=0.5, gamma=0.6, delta=0.2), LOW),
    "vsd": Recipe(VSD(scale=2.0), LOW),
}
"""By the objective's name."""
