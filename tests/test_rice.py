import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from syndiff_tasks.io import rice
from syndiff_tasks.io.rice import SLACK


def decode_rows(*arguments):
    return rice.decode_rows(*arguments).view(np.int16)


def compressed(image):
    """RICE_1 rows as cfitsio (through astropy) makes them: the bytes, and where each row lies."""
    content = io.BytesIO()
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=(1, image.shape[1]))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
    with fits.open(io.BytesIO(content.getvalue()), disable_image_compression=True) as hdus:
        begin = hdus[1].fileinfo()["datLoc"]
    stream = np.frombuffer(content.getvalue() + bytes(SLACK), dtype=np.uint8)
    lengths, offsets = stream[begin : begin + 8 * len(image)].view(">i4").reshape(-1, 2).astype(np.int64).T
    return stream, begin + 8 * len(image) + offsets, lengths


@st.composite
def images(draw):
    """Rows of noise of any width in bits, flat pieces and jumps, which between them reach every kind of block."""
    ny, nx = draw(st.integers(1, 40)), draw(st.integers(1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    noise = rng.normal(0, 2.0 ** draw(st.floats(-2, 16)), (ny, nx)) + draw(st.integers(-32768, 32767))
    flat = rng.random((ny, nx)) < draw(st.sampled_from([0, 0.5, 1]))
    noise[flat] = draw(st.integers(-32768, 32767))
    jumps = rng.random((ny, nx)) < draw(st.sampled_from([0, 0.02, 0.3]))
    noise[jumps] = rng.choice([-32768, 32767], jumps.sum())
    return np.clip(np.rint(noise), -32768, 32767).astype(np.int16)


@given(images())
@settings(max_examples=60, deadline=None)
def test_any_image_comes_back_as_it_went_into_cfitsio(image):
    assert np.array_equal(decode_rows(*compressed(image), image.shape[1]), image)


@given(images())
@settings(max_examples=20, deadline=None)
def test_unsigned_pixels_come_with_their_zero_added(image):
    unsigned = rice.decode_rows(*compressed(image), image.shape[1], 32768)
    assert unsigned.dtype == np.uint16 and np.array_equal(unsigned, image.astype(int) + 32768)


def test_rows_side_by_side_may_each_be_of_another_kind():
    rng = np.random.default_rng(3)
    scales = 2.0 ** np.arange(-3, 17, 0.5)
    image = rng.normal(0, scales[:, None], (scales.size, 200))
    image[::7] = 5
    image[::5, 70:90] = 30000
    image = np.clip(image, -32768, 32767).astype(np.int16)
    order = rng.permutation(scales.size)
    assert np.array_equal(decode_rows(*compressed(image[order]), 200), image[order])


def test_a_long_run_of_zero_bits_is_counted_across_words():
    image = np.zeros((2, 32), dtype=np.int16)
    image[0, 7] = 1000  # flat but for one jump: few low bits, hence a long run
    assert np.array_equal(decode_rows(*compressed(image), 32), image)


@given(images(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_gives_an_error_or_other_pixels_but_no_crash(image, data):
    stream, starts, lengths = compressed(image)
    damaged = stream.copy()
    for _ in range(data.draw(st.integers(1, 20))):
        damaged[data.draw(st.integers(int(starts[0]), stream.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        rows = decode_rows(damaged, starts, lengths, image.shape[1])
    except ValueError:
        return
    assert rows.shape == image.shape and rows.dtype == np.int16


@given(images(), st.integers(4, 1000))
@settings(max_examples=50, deadline=None)
def test_a_row_cut_short_is_an_error_that_names_it(image, cut):
    stream, starts, lengths = compressed(image)
    lengths[-1] = max(lengths[-1] - cut, 0)
    with pytest.raises(ValueError, match=f"row {len(image) - 1} "):
        decode_rows(stream, starts, lengths, image.shape[1])


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x55])
def test_rows_of_the_same_byte_that_never_hold_a_pixel_end_within_the_buffer(fill):
    stream = np.full(40 + SLACK, fill, dtype=np.uint8)
    with pytest.raises(ValueError, match="row 0"):
        decode_rows(stream, [0, 20], [20, 20], 6000)


def test_a_row_with_bytes_to_spare_is_an_error():
    stream, starts, lengths = compressed(np.arange(64, dtype=np.int16)[None])
    with pytest.raises(ValueError, match="row 0"):
        decode_rows(stream, starts, lengths + 4, 64)


@pytest.mark.parametrize("start, length", [(-1, 5), (0, 1), (0, 101), (101, 2), (2**62, 2**62)])
def test_a_row_outside_the_buffer_is_an_error(start, length):
    with pytest.raises(ValueError, match="row 0 should be"):
        decode_rows(np.zeros(100 + SLACK, dtype=np.uint8), [start], [length], 10)


def test_noise_of_any_width_and_a_flat_row_come_back():
    rng = np.random.default_rng(1)
    image = np.vstack([rng.normal(0, 10.0**n, (1, 70)) for n in range(5)] + [np.full((1, 70), 7)])
    image[2, 40] = 32767
    image = np.clip(image, -32768, 32767).astype(np.int16)
    assert np.array_equal(decode_rows(*compressed(image), 70), image)
