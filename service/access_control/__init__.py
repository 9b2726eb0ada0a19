"""Who may send requests: allowed hosts, API keys, the admin port, and rate limits."""
