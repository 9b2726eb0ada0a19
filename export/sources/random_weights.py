"""Random weights with usable results, for tests at any depth.

He initialization does not give them: a fresh network answers the same label to everything, its logits explode
with depth, and rounding errors grow by a sixth in each plain layer, so that no two programs agree on its answers. So
batch norm takes its statistics from the sample images, the depth is tamed as below, and the classifier is set so
that the logits over the samples have mean 0 (in each class) and standard deviation 2.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.networks.resnet import Architecture, BasicBlock, Bottleneck, ResNet

LOGITS_STANDARD_DEVIATION = 2.0


def random_network(described: Architecture, classes: int, seed: int) -> ResNet:
    """Return a network with scaled He weights, the same for the same seed; call `settle` with images next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(described, classes)
    with torch.no_grad():
        _tame(model)
    return model


@torch.no_grad()
def settle(model: ResNet, images: Tensor) -> None:
    """Set batch-norm statistics and the classifier from normalized images (N, 3, H, W), in one pass over them."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the passes; there is one
    model.train()
    model(images)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1
    logits = model(images)
    centred = logits - logits.mean(dim=0)
    scale = LOGITS_STANDARD_DEVIATION / centred.std(correction=0)
    model.fc.weight.mul_(scale)
    model.fc.bias.copy_((model.fc.bias - logits.mean(dim=0)) * scale)


def _tame(model: ResNet) -> None:
    """Scale the weights so that depth multiplies little: all blocks together change as much as a single one.

    Residual branches share the variance of one. Layers without a shortcut, or whose shortcut is a convolution (option
    C), are the identity plus an equally small share of He's weights.
    """
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck)]
    if model.architecture.shortcut is None:
        _mix_in_the_identity(blocks)
        return
    for block in blocks:
        last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
        last.weight.fill_(len(blocks) ** -0.5)
    _mix_in_the_identity([block.downsample for block in blocks if block.downsample is not None])


def _mix_in_the_identity(modules: Iterable[nn.Module]) -> None:
    inner = [part for module in modules for part in module.modules() if isinstance(part, nn.Conv2d)]
    kept = [convolution for convolution in inner if convolution.in_channels == convolution.out_channels]
    share = 1 / max(len(kept), 1)  # of the variance
    for convolution in kept:
        identity = nn.init.dirac_(torch.empty_like(convolution.weight))
        convolution.weight.mul_((share / 2) ** 0.5).add_(identity, alpha=(1 - share) ** 0.5)
