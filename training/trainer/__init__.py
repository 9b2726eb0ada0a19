"""The training loop and what it needs for each step."""
