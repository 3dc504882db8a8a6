import pytest
from hypothesis import given
from hypothesis import strategies as st

from syndiff_tasks.geometry.ffi import FRAME_SHAPE
from syndiff_tasks.geometry.region import Region, check_region, parse_region


@given(st.tuples(*[st.integers(0, 3000)] * 4))
def test_a_region_is_parsed_exactly_or_rejected(numbers):
    text = ",".join(map(str, numbers))
    x0, y0, x1, y1 = numbers
    if x0 < x1 and y0 < y1:
        region = parse_region(text)
        assert region == numbers
        assert region.shape == (y1 - y0, x1 - x0)
    else:
        with pytest.raises(ValueError, match="empty"):
            parse_region(text)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "-1,2,3,4", "nan,0,1,1", "0,0,1e9,1"]
)
def test_a_malformed_region_is_rejected(text):
    with pytest.raises(ValueError, match="x0,y0,x1,y1"):
        parse_region(text)


@given(st.text("0123456789,. -", max_size=30))
def test_random_text_is_parsed_as_a_region_or_rejected(text):
    try:
        region = parse_region(text)
    except ValueError as error:
        assert "region" in str(error)
    else:
        assert parse_region(",".join(map(str, region))) == region


def test_labels_of_regions_differ():
    assert str(Region(1, 23, 45, 67)) != str(Region(12, 3, 45, 67))


def test_a_region_off_the_ffi_or_without_science_pixels_is_rejected():
    check_region(Region(0, 0, 45, 10), FRAME_SHAPE)
    for region, message in (((0, 0, 2137, 10), "not inside"), ((0, 2048, 100, 2078), "no science pixel")):
        with pytest.raises(ValueError, match=message):
            check_region(Region(*region), FRAME_SHAPE)
