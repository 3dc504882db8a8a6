"""The same template, to the last bit, on another processor."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sky import clean_environment, planes, template_of, the_same

NO_VECTORS = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR AVX2 FMA3 X86_V3 X86_V4"


def older_processor(cache):
    """Make numba, numpy, OpenBLAS and the C library use what a processor of 2008 has: no AVX, no fused products."""
    return {
        "NUMBA_CPU_NAME": "nehalem",
        "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt",
        "NUMBA_CACHE_DIR": str(cache),
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": " ".join(one for one in NO_VECTORS.split() if one in features()),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX_Usable,-AVX2_Usable,-FMA_Usable",
    }


def features():
    """What numpy can switch off here; it warns of any other."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__[name]]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors are told by other names")
def test_an_older_processor_makes_the_same_template_to_the_last_bit(tiny_sky, finished, tmp_path):
    command = [Path(sys.executable).with_name("luigi"), "--module", "syndiff_tasks", "Downsample", "--local-scheduler"]
    ended = subprocess.run(
        [*command, *tiny_sky.arguments(tmp_path / "data")],
        **{"cwd": tmp_path, "env": clean_environment() | older_processor(tmp_path / "numba")},
        **{"capture_output": True, "text": True, "check": False},
    )
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "numba").rglob("*.nbi"))  # it was compiled for that processor
    ours, theirs = (planes(template_of(root)) for root in (finished, tmp_path / "data"))
    assert the_same(ours, theirs)
