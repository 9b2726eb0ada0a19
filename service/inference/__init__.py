"""Loaded models, which turn images or tensors into results, and the registry of the served models."""
