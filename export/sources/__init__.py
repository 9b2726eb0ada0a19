"""The sources of an exported network: a run, published weights, a file, or random weights."""
