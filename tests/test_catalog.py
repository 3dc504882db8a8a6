import sys
import textwrap

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from syndiff_tasks.io import catalog
from syndiff_tasks.io.catalog import CatalogUnavailable, fetch_gaia, read_stars

HEADER = "source_id,ra,dec,phot_g_mean_mag,phot_bp_mean_mag,phot_rp_mean_mag"
GAIA_ROW = "6794047652729201664,310.0625,-31.5,12.25,12.75,11.5"


def csv(tmp_path, *lines):
    path = tmp_path / "stars.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_catalogue_is_read_as_gaia_writes_it(tmp_path):
    path = csv(tmp_path, HEADER + ",parallax", GAIA_ROW + ",0.3", "2,0.5,88.0,15.0,null,,1")
    stars = read_stars(path)
    assert list(stars) == [*HEADER.split(","), "pmra", "pmdec"]
    assert stars[["pmra", "pmdec"]].isna().all(axis=None)
    assert stars["source_id"].tolist() == [6794047652729201664, 2]
    assert stars["source_id"].dtype == np.int64
    assert_array_equal(stars["phot_bp_mean_mag"], [12.75, np.nan])
    assert_allclose(stars[["ra", "dec", "phot_g_mean_mag"]], [[310.0625, -31.5, 12.25], [0.5, 88.0, 15.0]])


def test_proper_motion_is_read_where_the_catalog_has_it(tmp_path):
    stars = read_stars(csv(tmp_path, HEADER + ",pmra,pmdec", GAIA_ROW + ",-3.5,1200", GAIA_ROW + ",,"))
    assert_array_equal(stars[["pmra", "pmdec"]], [[-3.5, 1200.0], [np.nan, np.nan]])


def test_an_odd_source_id_keeps_its_last_digit(tmp_path):
    assert read_stars(csv(tmp_path, HEADER, GAIA_ROW.replace("664,", "665,"))).source_id[0] == 6794047652729201665


def test_surplus_fields_do_not_shift_the_columns(tmp_path):
    assert (
        read_stars(csv(tmp_path, "# a comment", HEADER, GAIA_ROW + ",", GAIA_ROW + ",7")).ra.tolist() == [310.0625] * 2
    )


def test_stars_without_source_id_are_numbered(tmp_path):
    rows = [line.split(",", 1)[1] for line in (HEADER, GAIA_ROW, GAIA_ROW)]
    assert read_stars(csv(tmp_path, *rows))["source_id"].tolist() == [1, 2]


def test_a_catalogue_without_stars_is_empty(tmp_path):
    stars = read_stars(csv(tmp_path, HEADER))
    assert len(stars) == 0
    assert stars.dtypes.tolist() == [np.int64, *[np.float64] * 7]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([HEADER.replace("phot_g_mean_mag", "G"), GAIA_ROW], "has no column phot_g_mean_mag; it needs ra, dec"),
        ([HEADER, GAIA_ROW, GAIA_ROW.replace("310.0625", "20:40:15")], "ra of star 2 .* is '20:40:15': give a number"),
        ([HEADER, GAIA_ROW.replace("-31.5", "-91")], "star 1 .* dec -91.0"),
        ([HEADER, GAIA_ROW.replace("310.0625", "")], "star 1 .* ra nan"),
        ([HEADER, GAIA_ROW.replace("12.25", "")], "star 1 .* phot_g_mean_mag nan"),
        ([HEADER, GAIA_ROW.replace("6794047652729201664", "")], "source_id .* must be an integer"),
        ([""], "is not a CSV file"),
    ],
)
def test_a_catalogue_that_is_none_is_refused_in_a_sentence(tmp_path, lines, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        read_stars(csv(tmp_path, *lines))


def test_a_catalogue_that_is_not_there_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.csv does not exist; set star_catalog"):
        read_stars(tmp_path / "nowhere.csv")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A made-up astroquery, whose archive does what a Python text says; and the file that counts its questions."""
    asked = tmp_path / "asked.txt"
    package = tmp_path / "site" / "astroquery"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.split(".")[0] == "astroquery"]:
        monkeypatch.delitem(sys.modules, name)

    def behave(text):
        (package / "gaia.py").write_text(
            "from astropy.table import MaskedColumn, Table\n"
            "class Gaia:\n"
            "    @staticmethod\n"
            "    def launch_job_async(query):\n"
            f"        with open({str(asked)!r}, 'a') as file: file.write(query + '\\n')\n"
            "        return Gaia\n"
            "    @staticmethod\n"
            "    def get_results():\n" + textwrap.indent(textwrap.dedent(text), " " * 8),
            encoding="utf-8",
        )
        return asked

    return behave


TWO_STARS = """
    return Table({
        "SOURCE_ID": [6794047652729201665, 2], "ra": [10.25, 10.5], "dec": [1.0, 2.0],
        "phot_g_mean_mag": [12.0, 13.0], "phot_bp_mean_mag": MaskedColumn([12.5, 0], mask=[False, True]),
        "phot_rp_mean_mag": [11.5, 12.5],
    })
"""


def test_gaia_is_asked_once_and_its_answer_kept(archive, tmp_path):
    asked = archive(TWO_STARS)
    cache = tmp_path / "cache" / "gaia.csv"
    first = fetch_gaia(10.3, 1.5, 0.75, cache, faintest=16.5)
    second = fetch_gaia(10.3, 1.5, 0.75, cache, faintest=16.5)
    (query,) = asked.read_text().splitlines()
    assert "CIRCLE(10.3, 1.5, 0.75)" in query
    assert "phot_g_mean_mag < 16.5" in query
    assert first["source_id"].tolist() == second["source_id"].tolist() == [6794047652729201665, 2]
    assert_array_equal(first["phot_bp_mean_mag"], [12.5, np.nan])
    assert [path.name for path in cache.parent.iterdir()] == ["gaia.csv"]


def test_another_field_is_asked_for_anew(archive, tmp_path):
    asked = archive(TWO_STARS)
    for radius in (0.75, 0.5):
        fetch_gaia(10.3, 1.5, radius, tmp_path / "gaia.csv")
    assert len(asked.read_text().splitlines()) == 2


def test_an_archive_that_is_down_is_told_apart_and_leaves_nothing(archive, tmp_path):
    archive("raise Exception('503 Service Unavailable')")
    with pytest.raises(CatalogUnavailable, match="503 Service Unavailable"):
        fetch_gaia(10.3, 1.5, 0.75, tmp_path / "cache" / "gaia.csv")
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_that_hangs_does_not_block(archive, tmp_path):
    archive("import time; time.sleep(60)")
    with pytest.raises(CatalogUnavailable, match="did not answer within 1 s"):
        fetch_gaia(10.3, 1.5, 0.75, tmp_path / "gaia.csv", timeout=1.0)


def test_without_astroquery_the_cure_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'syndiff_tasks\[gaia\]'"):
        fetch_gaia(10.3, 1.5, 0.75, tmp_path / "gaia.csv")


@pytest.mark.parametrize("field", [(np.nan, 0, 1), (0, 91, 1), (0, 0, 0), (0, 0, np.nan)])
def test_what_is_no_field_is_not_asked_for(field, tmp_path):
    with pytest.raises(ValueError, match="do not describe a field to query Gaia for"):
        fetch_gaia(*field, tmp_path / "gaia.csv")
