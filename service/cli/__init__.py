"""`classify`: the answers of POST /classify on the command line."""
