"""WHERE: coordinates in, index arrays out; never sees a pixel value."""
