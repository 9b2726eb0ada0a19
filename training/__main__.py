"""`python -m training`, and so `torchrun -m training`: the same as `train-resnet`."""

from training.cli import start

start()
