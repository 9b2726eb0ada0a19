"""The endpoints that run a model, and their shared parts."""
