"""Devices, memory and processes that a training uses."""
