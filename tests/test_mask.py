import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syndiff_tasks.pixels.convolution import dq_of_bits
from syndiff_tasks.pixels.mask import BRIGHT_RIM, DQ, GAP, PS1, REPAIRED, bit_mask, bits_named, check_disjoint

# MSKNAM/MSKVAL of a real GPC1 mask header (docs/facts.md §2).
GPC1_HEADER = {
    "DETECTOR": 1, "FLAT": 2, "DARK": 4, "BLANK": 8, "CTE": 16, "SAT": 32, "LOW": 64, "SUSPECT": 128, "CR": 256,
    "SPIKE": 512, "GHOST": 1024, "STREAK": 2048, "STARCORE": 4096, "CONV.BAD": 8192, "CONV.POOR": 16384,
}  # fmt: skip


def test_ps1_bits_have_the_values_of_a_real_mask_header():
    assert {name: PS1[name.replace(".", "_")].value for name in GPC1_HEADER} == GPC1_HEADER
    # MASK.VALUE of that header: the bits that PS1 itself takes for bad.
    bad = PS1.DETECTOR | PS1.FLAT | PS1.DARK | PS1.BLANK | PS1.CTE | PS1.SAT | PS1.LOW | PS1.CR | PS1.CONV_BAD
    assert bad == 8575


@pytest.mark.parametrize("flags", [PS1, DQ])
def test_every_bit_is_defined_once_and_the_bits_leave_no_gap(flags):
    values = [flag.value for flag in flags]
    assert values == [1 << n for n in range(len(values))]
    assert len(flags.__members__) == len(values)


def test_bit_twelve_is_starcore_and_bit_five_saturation():
    assert bit_mask([12]) == PS1.STARCORE
    assert bit_mask([5, 12]) == PS1.SAT | PS1.STARCORE
    assert bit_mask([]) == 0


@pytest.mark.parametrize("bit", [-1, 16, 4096, 1.5, True, float("nan"), float("inf")])
def test_a_bit_out_of_range_is_refused_by_its_value(bit):
    with pytest.raises(ValueError, match="0 to 15"):
        bit_mask([12, bit])


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("12", {12}),
        ("STARCORE", {12}),
        ("0x1000", {12}),
        (" conv.bad ", {13}),
        ("Conv_Poor", {14}),
        ("0xC001", {0, 14, 15}),
    ],
)
def test_bits_are_given_by_number_name_or_hexadecimal_value(text, bits):
    assert bits_named(text) == bits


@pytest.mark.parametrize("text", ["16", "0x0", "0x10000", "0x", "STAR", "-1", "4096", ""])
def test_a_word_that_is_not_a_bit_is_refused_by_name(text):
    with pytest.raises(ValueError, match=f"'{text}' is not a PS1 mask bit: give 0 to 15"):
        bits_named(text)


def test_a_bit_in_two_lists_is_refused_naming_both():
    check_disjoint(reject_mask_bits=(0, 1), ignore_mask_bits=(12,), suspect_mask_bits=())
    with pytest.raises(ValueError, match=r"12 \(STARCORE\) is in both ignore_mask_bits and suspect_mask_bits"):
        check_disjoint(reject_mask_bits=(0, 1), ignore_mask_bits=(5, 12), suspect_mask_bits=(9, 12))


@given(
    st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20),
    st.integers(0, 255),
    st.sets(st.integers(0, 15)),
    st.sets(st.integers(0, 15)),
)
def test_dq_says_of_each_pixel_what_its_bits_say(bits, missing, ignored, suspect):
    planes = np.array(bits, np.uint16), np.full(len(bits), missing, np.uint8)
    dq = dq_of_bits(*planes, bit_mask(ignored), bit_mask(suspect))
    assert dq.dtype == np.uint16
    for got, value in zip(dq, bits, strict=True):
        on = {n for n in range(16) if value >> n & 1}
        expected = DQ(0)
        expected |= DQ.SAT_PS1 if 5 in on or missing & BRIGHT_RIM else 0
        expected |= DQ.IGNORED_BIT if on & ignored else 0
        expected |= DQ.SUSPECT_PS1 if on & suspect else 0
        expected |= DQ.BAND_MISSING if missing % 32 else 0
        expected |= DQ.PS1_GAP if missing & GAP else 0
        expected |= DQ.STAR_REPAIRED if missing >= 128 else 0
        assert got == expected


def test_a_repaired_star_alone_is_no_missing_band():
    assert dq_of_bits(np.zeros(1, np.uint16), np.array([REPAIRED], np.uint8), 0)[0] == DQ.STAR_REPAIRED
