"""Metrics, statistics of models, and lines of the log on their way out."""
