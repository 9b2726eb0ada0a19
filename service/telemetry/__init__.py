"""Metrics, statistics of models, and the writing of the log."""
