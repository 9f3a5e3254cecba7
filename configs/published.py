"""What was published: the recipe of every built-in objective for any prior but the embedded one.

Numbers are those of the paper or of its authors' code, in our conventions: scales in the standard form, times as
fractions of the schedule, progress as a share of the published number of steps.
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
from guidance.timesteps import Dropping, Falling, Linear

WHOLE = (0.02, 0.98)
LOWER_HALF = (0.02, 0.5)
UNIFORM = Falling(WHOLE, WHOLE)
"""DreamFusion's times."""
WARMED_UP = Falling(WHOLE, LOWER_HALF, until=0.3)
"""LucidDreamer's: the upper bound falls over the first 1500 of 5000 steps."""
DROPPING = Dropping(WHOLE, LOWER_HALF, at=0.2)
"""ProlificDreamer's: the upper half goes after 5000 of 25000 steps."""
FROM_NOISE = Dropping(WHOLE, (0.3, 0.98), at=1 / 3)
"""Without the clean end after 5000 of 15000 steps, as the authors of RFDS run InstaFlow."""

PUBLISHED: dict[str, Recipe] = {
    "asd": Recipe(ASD(), Falling((0.5, 0.98), LOWER_HALF)),
    "bsd": Recipe(BSD(), WARMED_UP),
    "csd": Recipe(CSD(), DROPPING),
    "csm": Recipe(CSM(), WARMED_UP),
    "dds": Recipe(DDS(), Falling((0.05, 0.95), (0.05, 0.95))),
    "disback": Recipe(DisBack(), UNIFORM),
    "esd": Recipe(ESD(), DROPPING),
    "f-vsd": Recipe(FVSD(), UNIFORM),
    "ism": Recipe(ISM(), WARMED_UP),
    "nfsd": Recipe(NFSD(), UNIFORM),
    "pds": Recipe(PDS(), UNIFORM),
    "pg-sb": Recipe(PGSB(), UNIFORM),
    "regions": Recipe(RegionSDS(scale=101.0), Falling(WHOLE, LOWER_HALF)),
    "rfds": Recipe(RFDS(), FROM_NOISE),
    "rfds-rev": Recipe(RFDSRev(), FROM_NOISE),
    "sdi": Recipe(SDI(), Linear(0.98, 0.25)),
    "sds": Recipe(SDS(scale=101.0), UNIFORM),
    "sjc": Recipe(SJC(scale=100.0), Falling((0.01, 0.97), (0.01, 0.97))),
    "tsm": Recipe(TSM(), WARMED_UP),
    "vsd": Recipe(VSD(), DROPPING),
}
"""By the objective's name."""
