import os
import time

import pytest
from fetching import NAME

from syndiff_tasks.io import disk
from syndiff_tasks.io.liveness import owner


def test_temporaries_of_other_hosts_are_swept_only_when_old(tmp_path):
    names = [".fetching+elsewhere+0a+new.fits", ".fetching+elsewhere+0b+old.fits", f".fetching+{owner()}+0c+mine.fits"]
    for name in [*names, NAME]:
        (tmp_path / name).write_bytes(b"")
    eight_days_ago = time.time() - 8 * 86400
    for name in (*names[1:], NAME):
        os.utime(tmp_path / name, (eight_days_ago, eight_days_ago))
    assert disk.sweep(tmp_path, days=7) == [tmp_path / names[1]]
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[2], NAME}
    assert disk.sweep(tmp_path / "missing", days=7) == []


def test_space_needed_is_that_of_a_ccd_as_measured():
    # 911-1,270 skycells of r, i, z, y images: about 260 GB (docs/facts.md §4).
    images = disk.needed_bytes(950, "rizy", ["image"], at_once=8, keep_raw=True)
    assert images == pytest.approx(262e9, rel=0.03)


def test_a_ccd_fits_on_a_laptop_when_raw_skycells_are_not_kept():
    arguments = dict(bands="rizy", kinds=["image", "mask", "wt"], at_once=4, combined=20_000_000)
    kept = disk.needed_bytes(1000, keep_raw=True, **arguments)
    gone = disk.needed_bytes(1000, keep_raw=False, **arguments)
    assert gone < 25e9 < 500e9 < kept
    assert disk.needed_bytes(0, keep_raw=True, **arguments) == 0


def test_a_disk_too_small_is_told_before_the_run(tmp_path):
    disk.demand_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(ValueError, match=r"GB free, but this run needs about 1000000000\.0 GB.*keep_raw = false"):
        disk.demand_space(tmp_path / "not" / "yet", 10**18)
