"""The HTTP routes, one file for each family of them."""
