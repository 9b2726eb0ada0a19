"""Image files: header, limits, decoding, orientation, resizing."""
