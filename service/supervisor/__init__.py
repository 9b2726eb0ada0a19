"""The supervisor: it starts and replaces workers, adds up their statistics, and ends the server."""
