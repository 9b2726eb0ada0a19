"""Files as a reader brings them from elsewhere: weights of ResNet-18 with random values, and its labels.

python -m tests.documents.weights resnet18.pth labels.txt
"""

import sys

import torch

from training.networks.resnet import build


def main() -> None:
    """Write both files."""
    torch.manual_seed(0)
    torch.save(build("resnet18", num_classes=10).state_dict(), sys.argv[1])
    with open(sys.argv[2], "w", encoding="utf-8") as labels:
        labels.writelines(f"label {number}\n" for number in range(10))


if __name__ == "__main__":
    main()
