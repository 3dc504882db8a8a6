"""Where things are: coordinates in, index arrays out; no module here sees a pixel value."""
