"""The queue of images, the batches that are formed from it, and which images are refused."""
