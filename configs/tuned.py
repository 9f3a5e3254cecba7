"""What the embedded prior is asked with: the recipe of every built-in objective.

The prior is small and sure of itself: scales that suit Stable Diffusion saturate it, and it has nothing to say about
details, so timesteps fall further than is usual. A row states what differs from the defaults of `ObjectivePreset`,
whose timesteps fall from 0.5-0.98 to 0.02-0.4. The values won races over ten prompts, in 100 steps and where rates
are not 1 once more in 400 (docs/tuning.md), and all of them were run on twelve prompts and judged
(docs/objectives.md).
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
from guidance.timesteps import AnnealedUniform, LinearAnneal

LOW_NOISE = AnnealedUniform(start_range=(0.3, 0.9), end_range=(0.02, 0.2))
"""Less noise than with the default times."""
LOW_NOISE_FLOW = AnnealedUniform(start_range=(0.45, 0.89), end_range=(0.12, 0.36))
"""The same ratios of noise to signal at the times of a flow-matching prior."""

TUNED: dict[str, ObjectivePreset] = {
    "asd": ObjectivePreset(ASD(guidance_scale=1.0), lr_scale=2.0),
    "bsd": ObjectivePreset(BSD(variant="auto", text_weight=2.0), lr_scale=2.0),
    "csd": ObjectivePreset(CSD(uncond_weight=(-1.0, -0.4), noise_weight=(0.0, -0.6)), LOW_NOISE),
    "csm": ObjectivePreset(CSM(weight=2.0), LOW_NOISE, lr_scale=0.2),
    "dds": ObjectivePreset(DDS(guidance_scale=1.0), LOW_NOISE, lr_scale=2.0),
    "disback": ObjectivePreset(DisBack(guidance_scale=4.0, stages_end=0.2), LOW_NOISE),
    "esd": ObjectivePreset(ESD(guidance_scale=2.0), LOW_NOISE),
    "f-vsd": ObjectivePreset(FVSD(guidance_scale=2.0), LOW_NOISE),
    "ism": ObjectivePreset(ISM(guidance_scale=1.0, delta=0.2), LOW_NOISE),
    "nfsd": ObjectivePreset(NFSD(guidance_scale=1.0, weighting="reconstruction", t_switch=0.4), LOW_NOISE),
    "pds": ObjectivePreset(PDS(guidance_scale=7.5)),
    "pg-sb": ObjectivePreset(PGSB(guidance_scale_min=1.0, guidance_scale_max=3.0)),
    "regions": ObjectivePreset(RegionSDS(guidance_scale=1.0), LOW_NOISE, lr_scale=2.0),
    "rfds": ObjectivePreset(RFDS(guidance_scale=2.0), LOW_NOISE_FLOW),
    "rfds-rev": ObjectivePreset(RFDSRev(guidance_scale=2.0), LOW_NOISE_FLOW),
    "sdi": ObjectivePreset(SDI(guidance_scale=1.0, inversion_guidance_scale=0.0, eta=0.0), LinearAnneal(0.8, 0.02)),
    "sds": ObjectivePreset(SDS(guidance_scale=2.0, weighting="reconstruction", guidance_rescale=0.5)),
    "sjc": ObjectivePreset(SJC(guidance_scale=2.0), LOW_NOISE),
    "tsm": ObjectivePreset(TSM(guidance_scale=0.5, gamma=0.6, delta=0.2), LOW_NOISE),
    "vsd": ObjectivePreset(VSD(guidance_scale=2.0), LOW_NOISE),
}
"""By the objective's name."""
