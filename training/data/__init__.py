"""Data sets as arrays of images: packed or decoded for each step."""
