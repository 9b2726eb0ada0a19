"""Loaded models: from an image or a tensor to an answer, and the registry of what serves."""
