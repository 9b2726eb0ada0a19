"""`classify`: POST /classify on the command line."""
