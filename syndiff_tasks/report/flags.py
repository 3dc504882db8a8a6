"""How pages and pictures name and color the data-quality flags of a template."""

from typing import NamedTuple

from syndiff_tasks.pixels.mask import DQ


class Flag(NamedTuple):
    """A DQ bit, its meaning for a reader, and its color."""

    bit: DQ
    meaning: str
    color: str


# Most serious first: a pixel is drawn in the color of its most serious flag.
# Colors of Okabe & Ito (2008), which color-blind readers can tell apart.
FLAGS = (
    Flag(DQ.COLLATERAL, "outside the science pixels", "#bdbdbd"),
    Flag(DQ.NO_PS1, "no Pan-STARRS1 data", "#000000"),
    Flag(DQ.LOW_COVERAGE, "too little Pan-STARRS1 data", "#7a4b00"),
    Flag(DQ.SAT_PS1, "bright star saturated or blank in Pan-STARRS1", "#d55e00"),
    Flag(DQ.STAR_REPAIRED, "repaired bright star", "#cc79a7"),
    Flag(DQ.PS1_GAP, "blank Pan-STARRS1 pixels", "#009e73"),
    Flag(DQ.IGNORED_BIT, "core of a bright star", "#e69f00"),
    Flag(DQ.BAND_MISSING, "one or more bands missing", "#0072b2"),
    Flag(DQ.SUSPECT_PS1, "suspect Pan-STARRS1 pixels", "#f0e442"),
    Flag(DQ.PROJECTION_SEAM, "seam between two projections", "#56b4e9"),
)
