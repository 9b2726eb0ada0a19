"""How good a network is: errors, calibration, and measures of each class."""
