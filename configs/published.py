"""What was published: the recipe of every built-in objective for any prior but the embedded one.

Numbers are those of the paper or of its authors' code, in our conventions: scales in the standard form, times as
fractions of the schedule, progress as a share of the published number of steps.
"""

from __future__ import annotations

from configs.recipe import ObjectivePreset
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
from guidance.timesteps import AnnealedUniform, LinearAnneal, TwoStageUniform

FULL_RANGE = (0.02, 0.98)
LOWER_RANGE = (0.02, 0.5)
DREAMFUSION = AnnealedUniform(FULL_RANGE, FULL_RANGE)
"""DreamFusion's times."""
LUCIDDREAMER = AnnealedUniform(FULL_RANGE, LOWER_RANGE, anneal_until=0.3)
"""LucidDreamer's: the upper bound falls over the first 1500 of 5000 steps."""
PROLIFICDREAMER = TwoStageUniform(FULL_RANGE, LOWER_RANGE, switch_at=0.2)
"""ProlificDreamer's: the upper half goes after 5000 of 25000 steps."""
RFDS_INSTAFLOW = TwoStageUniform(FULL_RANGE, (0.3, 0.98), switch_at=1 / 3)
"""Without the clean end after 5000 of 15000 steps, as the authors of RFDS run InstaFlow."""

PUBLISHED: dict[str, ObjectivePreset] = {
    "asd": ObjectivePreset(ASD(), AnnealedUniform((0.5, 0.98), LOWER_RANGE)),
    "bsd": ObjectivePreset(BSD(), LUCIDDREAMER),
    "csd": ObjectivePreset(CSD(), PROLIFICDREAMER),
    "csm": ObjectivePreset(CSM(), LUCIDDREAMER),
    "dds": ObjectivePreset(DDS(), AnnealedUniform((0.05, 0.95), (0.05, 0.95))),
    "disback": ObjectivePreset(DisBack(), DREAMFUSION),
    "esd": ObjectivePreset(ESD(), PROLIFICDREAMER),
    "f-vsd": ObjectivePreset(FVSD(), DREAMFUSION),
    "ism": ObjectivePreset(ISM(), LUCIDDREAMER),
    "nfsd": ObjectivePreset(NFSD(), DREAMFUSION),
    "pds": ObjectivePreset(PDS(), DREAMFUSION),
    "pg-sb": ObjectivePreset(PGSB(), DREAMFUSION),
    "regions": ObjectivePreset(RegionSDS(guidance_scale=101.0), AnnealedUniform(FULL_RANGE, LOWER_RANGE)),
    "rfds": ObjectivePreset(RFDS(), RFDS_INSTAFLOW),
    "rfds-rev": ObjectivePreset(RFDSRev(), RFDS_INSTAFLOW),
    "sdi": ObjectivePreset(SDI(), LinearAnneal(0.98, 0.25)),
    "sds": ObjectivePreset(SDS(guidance_scale=101.0), DREAMFUSION),
    "sjc": ObjectivePreset(SJC(guidance_scale=100.0), AnnealedUniform((0.01, 0.97), (0.01, 0.97))),
    "tsm": ObjectivePreset(TSM(), LUCIDDREAMER),
    "vsd": ObjectivePreset(VSD(), PROLIFICDREAMER),
}
"""By the objective's name."""
