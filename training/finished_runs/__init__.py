"""The use of a finished run: its evaluation on images in folders, and its archive."""
