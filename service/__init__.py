"""Image bytes in, labels out. Never imports torch, `training` or `export`."""
