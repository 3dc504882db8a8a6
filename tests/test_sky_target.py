"""Targets as people write them, and the services that know their names (here on 127.0.0.1)."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord, name_resolve
from hypothesis import given
from hypothesis import strategies as st

from syndiff_tasks.config import SkyTarget
from syndiff_tasks.io import name_resolver
from syndiff_tasks.sky_target import position_of

HERE = (150.05, 54.3363889)  # 10h00m12s +54d20m11s
SOUTH = (150.05, -0.3363889)


def refuse(name):
    raise AssertionError(f"{name!r} was taken for a name")


@pytest.mark.parametrize(
    "text, position",
    [
        ("150.05 54.3363889", HERE),
        ("150.05, 54.3363889", HERE),
        ("150.05,54.3363889", HERE),
        ("  150.05   +54.3363889 ", HERE),
        ("150.05d 54.3363889d", HERE),
        ("150.05° 54.3363889°", HERE),
        ("10h00m12s +54d20m11s", HERE),
        ("10h00m12s, 54d20m11s", HERE),
        ("10h00m12s+54d20m11s", HERE),
        ("10:00:12 +54:20:11", HERE),
        ("10:00:12.0, 54:20:11.0", HERE),
        ("10 00 12 +54 20 11", HERE),
        ("10 00 12 54 20 11", HERE),
        ("10h00m12s +54°20′11″", HERE),
        ("150d03m00s 54d20m11s", HERE),
        ("10:00:12 -00:20:11", SOUTH),
        ("10 00 12 -00 20 11", SOUTH),
        ("10h00m12s -0d20m11s", SOUTH),
        ("150.05 \N{MINUS SIGN}0.3363889", SOUTH),
        ("0 -90", (0.0, -90.0)),
        ("-0.5 3", (359.5, 3.0)),
        ("360 3", (0.0, 3.0)),
    ],
)
def test_a_position_is_read_in_every_usual_form(text, position):
    assert position_of(text, refuse) == pytest.approx(position, abs=1e-7)


@pytest.mark.parametrize(
    "target",
    [
        (150.05, 54.3363889),
        [150.05, 54.3363889],
        np.array([150.05, 54.3363889]),
        SkyCoord(150.05, 54.3363889, unit="deg"),
        SkyCoord("10h00m12s +54d20m11s"),
        SkyCoord(150.05, 54.3363889, unit="deg").galactic,
        SkyCoord(150.05, 54.3363889, unit="deg").transform_to(FK5(equinox="J1975")),
    ],
    ids=["tuple", "list", "array", "degrees", "sexagesimal", "galactic", "FK5"],
)
def test_python_gives_numbers_or_a_sky_coord(target):
    assert position_of(target, refuse) == pytest.approx(HERE, abs=1e-7)


@given(st.floats(0, 359.9999), st.floats(-89.9999, 89.9999), st.sampled_from([":", " ", "hmsdms"]))
def test_what_astropy_writes_is_read_back(ra, dec, style):
    coord = SkyCoord(ra * u.deg, dec * u.deg)
    text = coord.to_string("hmsdms", precision=6, **({} if style == "hmsdms" else {"sep": style}))
    read = SkyCoord(*position_of(text, refuse), unit="deg")
    assert read.separation(coord).arcsec < 0.001


@given(st.floats(0, 359.9999), st.floats(-90, 90))
def test_degrees_keep_every_digit_on_their_way_to_a_task(ra, dec):
    text = SkyTarget().normalize((ra, dec))
    assert SkyTarget().parse(text) == text and tuple(map(float, text.split())) == (ra, dec)


@pytest.mark.parametrize(
    "text", ["210.8", "1 2 3", "10:00:12", "1,2,3,4", "12:61:00 +5:00:00", "1.2.3 4", "10:00:12 +54:20:11 7"]
)
def test_what_is_no_position_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"this is not a position; give one such as '210.8023 54.3489', '14:03:12.6"):
        position_of(text, refuse)


@pytest.mark.parametrize("target", ["361 3", "210 91", "-181 0", (10.0, -95.0), "10:00:12 +95:00:00"])
def test_what_is_not_on_the_sky_is_refused_with_its_numbers(target):
    with pytest.raises(ValueError, match=r"(is not on the sky|this is not a position)"):
        position_of(target, refuse)


@pytest.mark.parametrize(
    "target", [(1.0,), (1.0, 2.0, 3.0), 5.0, ("a", "b"), (float("nan"), 1.0), SkyCoord([1, 2], [3, 4], unit="deg")]
)
def test_python_values_that_are_not_one_position_are_refused(target):
    with pytest.raises(ValueError, match="--target"):
        position_of(target, refuse)


@pytest.mark.parametrize(
    "name", ["SN 2020xyz", "M31", "TIC 261136679", "3C 273", "NGC 4993", "V* RY Tau", "2MASS J0348-6022"]
)
def test_a_name_is_looked_up_as_it_is_written(name):
    asked = []
    assert position_of(name, lambda one: asked.append(one) or (1.0, 2.0)) == (1.0, 2.0)
    assert asked == [name]


def test_no_target_stays_empty():
    assert SkyTarget().parse("") == SkyTarget().normalize(" ") == ""


# --- services ---------------------------------------------------------------------------------------------------------

SESAME = "#=S=Simbad\n#!SUCCESS\n%J 83.6324 +22.0174 = 05:34:31.7 +22:01:02\n"
NOTHING = "#=S=Simbad\n#!ERROR: Nothing found\n"


@pytest.fixture
def services():
    """Sesame and MAST on 127.0.0.1: what they were asked for, and where they are."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            address = urlsplit(self.path)
            if address.path == "/mast":
                request = json.loads(parse_qs(address.query)["request"][0])
                name = request["params"]["input"]
                assert (request["service"], request["params"]["format"]) == ("Mast.Name.Lookup", "json")
                known = [{"ra": 84.291188, "decl": -80.469119, "resolver": "TIC"}] if name == "TIC 261136679" else []
                answer = json.dumps({"resolvedCoordinate": known})
            else:
                name = unquote(address.query)
                answer = SESAME if name == "M 1" else NOTHING
            asked.append(name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    with name_resolve.sesame_url.set([f"{base}/sesame/"]):
        yield asked, f"{base}/mast"
    server.shutdown()
    server.server_close()


def test_a_name_is_asked_for_once_and_then_known_without_network(services, tmp_path):
    asked, mast = services
    for _ in range(2):
        assert name_resolver.resolve("M 1", tmp_path / "targets", mast) == pytest.approx((83.6324, 22.0174))
    assert name_resolver.resolve("m 1", tmp_path / "targets", mast) == pytest.approx((83.6324, 22.0174))
    assert asked == ["M 1"]


@pytest.mark.parametrize("name", ["TIC 261136679", "tic261136679", "TIC-261136679"])
def test_a_tic_number_is_asked_of_mast(services, tmp_path, name):
    asked, mast = services
    assert name_resolver.resolve(name, tmp_path, mast) == (84.291188, -80.469119)
    assert asked == ["TIC 261136679"]


@pytest.mark.parametrize("name, service", [("M 1000", "SIMBAD, NED and VizieR"), ("TIC 1", "MAST")])
def test_a_name_that_nobody_knows_is_refused_and_not_kept(services, tmp_path, name, service):
    with pytest.raises(ValueError, match=f"--target '{name}': not a position, and not a name that {service} know"):
        name_resolver.resolve(name, tmp_path, services[1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["M 1", "TIC 261136679"])
def test_without_network_the_message_says_so_and_what_to_do(tmp_path, name):
    with name_resolve.sesame_url.set(["http://127.0.0.1:9/"]):
        with pytest.raises(ValueError, match=f"--target '{name}': .* does not answer; .* or give RA and Dec, e.g."):
            name_resolver.resolve(name, tmp_path, "http://127.0.0.1:9/mast")
