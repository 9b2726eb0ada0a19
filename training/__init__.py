"""Reproduces the paper and trains your classes. PyTorch lives here."""
