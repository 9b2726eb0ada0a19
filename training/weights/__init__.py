"""Files of weights: checkpoints, published weights, and conversion from other libraries."""
