"""The routes that run a model, and what they share."""
