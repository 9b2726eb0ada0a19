"""Where the exported network comes from: a run, published weights, a file, or random weights."""
