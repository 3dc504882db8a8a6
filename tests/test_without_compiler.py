"""The kernels without numba's compiler: tests that show them right with it, run once more by one interpreter."""

import os
import subprocess
import sys
from pathlib import Path

CHOSEN = (
    "test_background.py::test_segment_makes_the_sky_exactly_zero_and_leaves_sources_and_nan_alone",
    "test_background.py::test_sources_are_exactly_the_pixels_that_sep_finds[20]",
    "test_bands.py::test_float32_files_give_what_int16_files_give",
    "test_bands.py::test_the_combination_is_the_double_precision_one_pixel_by_pixel",
    "test_blocks.py::test_blocks_are_those_of_the_brute_force_sum[corner0-1]",
    "test_blocks.py::test_blocks_are_those_of_the_brute_force_sum[corner2-3]",
    "test_blocks.py::test_blocks_are_those_of_the_brute_force_sum[corner2-8]",
    "test_convolution.py::test_a_frame_widened_from_another_projection_has_its_stars_where_they_belong",
    "test_convolution.py::test_flags_spread_as_far_as_the_kernel_and_no_further",
    "test_damage.py::test_a_mask_grows_as_a_maximum_filter_does",
    "test_damage.py::test_wings_of_a_damaged_star_are_marked_and_a_transient_on_them_is_not",
    "test_demo.py::test_a_gaussian_deposited_in_pixels_agrees_with_quadrature_in_two_dimensions",
    "test_demo.py::test_compressed_rows_are_what_astropy_makes_of_them",
    "test_difference_core.py::test_a_small_region_has_a_kernel_of_one_number",
    "test_difference_core.py::test_convolving_is_the_double_precision_sum_over_taps_and_terms",
    "test_difference_core.py::test_the_psf_of_a_source_is_what_the_kernel_makes_of_its_image",
    "test_forced_photometry.py::test_a_source_convolved_by_the_kernel_is_measured_to_a_millionth[0.3]",
    "test_mapping.py::test_index_map_of_a_cutout_counts_pixels_of_the_cutout",
    "test_mapping.py::test_jacobian_and_pixel_scale_agree_with_finite_differences",
    "test_mapping.py::test_native_positions_of_a_grid_agree_with_astropy",
    "test_rice.py::test_noise_of_any_width_and_a_flat_row_come_back",
    "test_rings.py::test_owner_is_found_at_ra_zero_at_the_pole_and_at_the_southern_edge",
    "test_rings.py::test_random_positions_have_the_one_owner_that_the_ps1_rule_gives",
    "test_series.py::test_the_surroundings_of_targets_are_kept_out",
    "test_sky_background.py::test_noise_alone_has_no_straps",
    "test_skycell_table.py::test_table_of_ps1_skycells_agrees_with_the_rings_inside_cores",
    "test_tansip.py::test_pixel_to_sky_agrees_with_astropy[40.9-87.1-250]",
    "test_tansip.py::test_sky_to_pixel_agrees_with_astropy_and_inverts_pixel_to_sky[40.9-87.1-250]",
    "test_template.py::test_a_star_is_integrated_over_small_pixels_too",
    "test_template.py::test_variance_is_the_sum_of_squared_shares[41-10-4]",
)


def test_the_kernels_are_right_without_the_compiler():
    tests = [str(Path(__file__).with_name(name)) for name in CHOSEN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    interpreted = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=interpreted, capture_output=True, text=True, check=False)
    assert f"\n{len(CHOSEN)} passed" in done.stdout, done.stdout + done.stderr
