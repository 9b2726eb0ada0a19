"""Metrics of a network: errors, calibration, and figures of each class."""
