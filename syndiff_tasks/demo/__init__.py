"""A made-up sky: an archive of skycell files in the real on-disk form, and an FFI of the same stars."""
