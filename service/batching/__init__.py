"""The queue of images, batch formation, and load shedding."""
