"""The worker process: one event loop, one set of models, and the swap to another set."""
