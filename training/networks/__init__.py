"""The networks of the paper, and what they cost."""
