import numpy as np
import pandas as pd
import pytest
from astropy_skycell import SURVEY, depth

from syndiff_tasks.geometry.rings import ring_skycell
from syndiff_tasks.geometry.skycell_table import SKYCELL_COLUMNS, tessellation_from_table


def as_table(skycells):
    return pd.DataFrame(skycells, columns=SKYCELL_COLUMNS)


def test_owner_in_a_table_is_the_skycell_with_the_position_deepest_inside():
    skycells = [ring_skycell(projection, cell) for projection in (2634, 2635, 2643) for cell in range(100)]
    table = tessellation_from_table(as_table(skycells))
    rng = np.random.default_rng(6)
    ra, dec = rng.uniform(0, 60, 60), rng.uniform(85, 89, 60)
    depths = np.array([depth(skycell, ra, dec) for skycell in skycells]).T
    assert (depths.max(axis=1) > 0).sum() > 30
    expected = np.where(depths.max(axis=1) > 0, depths.argmax(axis=1), -1)
    assert np.array_equal(table.owner(ra, dec), expected)


def test_table_of_ps1_skycells_agrees_with_the_rings_inside_cores():
    skycells = [ring_skycell(2180, cell) for cell in range(100)]
    table = tessellation_from_table(as_table(skycells).astype(str))
    rng = np.random.default_rng(7)
    ra, dec = 121.7647 + rng.uniform(-2, 2, 2000), rng.uniform(40.5, 43.5, 2000)
    ours = [SURVEY.name_of(number) for number in SURVEY.owner(ra, dec)]
    theirs = [table.name_of(number) for number in table.owner(ra, dec)]
    assert theirs == ours
    assert table.skycell("skycell.2180.055") == skycells[55]


def test_positions_outside_the_skycells_of_a_table_have_no_owner():
    table = tessellation_from_table(as_table([ring_skycell(2180, 55)]))
    assert table.owner([[121.7, 301.7], [0.0, 121.7]], [[42.1, -42.1], [42.1, 60.0]]).tolist() == [[0, -1], [-1, -1]]
    assert table.owner([], []).shape == (0,)


@pytest.mark.parametrize("column", SKYCELL_COLUMNS)
def test_error_for_a_table_without_a_column_names_the_column(column):
    with pytest.raises(ValueError, match=f"no column {column};"):
        tessellation_from_table(as_table([ring_skycell(2180, 55)]).drop(columns=column))


@pytest.mark.parametrize(
    "cell", ["__import__('os').system('touch /tmp/hostile')", "nan", np.inf, None, "", True, "1;2"]
)
def test_error_for_a_value_that_is_not_a_number_names_row_and_column(cell):
    table = as_table([ring_skycell(2180, 55), ring_skycell(2180, 56)]).astype(object)
    table.loc[1, "CRVAL1"] = cell
    with pytest.raises(ValueError, match="row 1 .* CRVAL1 = "):
        tessellation_from_table(table)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("NAME", "skycell.812.050", "not the name of a skycell"),
        ("NAME", 812.05, "not the name of a skycell"),
        ("NAME", "skycell.2180.056", "twice"),
        ("NAXIS1", 0, "NAXIS1, NAXIS2 = 0"),
        ("NAXIS2", 6240.5, "6240.5"),
        ("CRVAL2", 91, "CRVAL2 = 91"),
        ("PC1_1", 0, "singular"),
    ],
)
def test_a_row_that_is_not_a_skycell_is_rejected(column, value, message):
    table = as_table([ring_skycell(2180, 56), ring_skycell(2180, 55)]).astype(object)
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=message):
        tessellation_from_table(table)


def test_an_empty_table_is_rejected():
    with pytest.raises(ValueError, match="no rows"):
        tessellation_from_table(as_table([]))


def test_error_for_a_skycell_missing_from_the_table_names_it():
    with pytest.raises(ValueError, match="skycell.0812.050"):
        tessellation_from_table(as_table([ring_skycell(2180, 55)])).skycell("skycell.0812.050")
