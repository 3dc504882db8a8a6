from syndiff_tasks import process


def away(cell):
    return f"DownloadSkycell: skycell.2611.{cell:03d}.stk.r.fits: the host a.b could not be reached (5 tries)"


def test_what_a_thousand_tasks_failed_of_is_told_once_with_their_number_and_some_of_their_names():
    bad_wcs = "Convolve: the FFI has no WCS"
    (once, other) = process.told_once([bad_wcs, *(away(cell) for cell in range(986))])
    assert other == bad_wcs
    named = ", ".join(f"skycell.2611.{cell:03d}.stk.r.fits" for cell in (1, 2, 3))
    assert once == f"{away(0)} (and 985 other tasks failed of the same: {named}, …)"


def test_of_few_tasks_that_failed_of_the_same_each_is_named():
    (once,) = process.told_once([away(3), away(7)])
    assert once == f"{away(3)} (and 1 other task failed of the same: skycell.2611.007.stk.r.fits)"
