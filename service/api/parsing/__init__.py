"""Bodies, parameters and JSON from clients: bounded, then read."""
