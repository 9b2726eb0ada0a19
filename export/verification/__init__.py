"""Measurements on an exported file, and the checks that it must pass."""
