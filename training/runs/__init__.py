"""One training run: its folder, its start, its measurements, its end."""
