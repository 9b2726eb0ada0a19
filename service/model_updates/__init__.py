"""Changes of models while the server runs: validation in a separate process, roll-out, and states of versions."""
