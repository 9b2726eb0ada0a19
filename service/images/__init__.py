"""Image files: headers, limits, decoding, orientation and resizing."""
