"""Parsers of bodies, parameters and JSON from clients, with limits that are checked before parsing."""
