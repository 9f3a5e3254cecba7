"""Labels of views, and the elevation from which a view is overhead."""

from __future__ import annotations

import math

VIEW_LABELS = ("front", "side", "back", "overhead")
"""Words for where the camera stands, as in "a teddy bear, front view"."""


OVERHEAD_ELEVATION = math.radians(60)
"""Elevation above which a view shows no side (DreamFusion, section 3.1)."""


def view_label(azimuth: float, elevation: float) -> str:
    """The word of `VIEWS` for a camera at these angles in radians (DreamFusion, section 3.1)."""
    if elevation > OVERHEAD_ELEVATION:
        return "overhead"
    angle = abs(math.degrees(math.remainder(azimuth, math.tau)))
    return "front" if angle < 45 else "side" if angle < 135 else "back"
