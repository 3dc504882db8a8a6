"""HOW MUCH: arrays in, arrays out; never sees a WCS, a header or a path."""
