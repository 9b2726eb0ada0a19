"""Measurements inside networks, as in the paper: layer responses and gradient norms.

Figure 7: the standard deviation of each 3x3 layer's output after batch norm, before the activation or the addition.
Residual layers respond more weakly than plain ones, and more so in deeper networks: residual functions stay near zero.
The gradient norms test whether plain networks degrade because gradients vanish; with batch norm they do not vanish.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from training.data.image_arrays import Images
from training.evaluation.evaluate import images_at_a_time
from training.networks.resnet import ResNet

Responses = dict[str, float]


@torch.inference_mode()
def layer_responses(
    model: ResNet, images: Images, to_input: Callable[[Tensor], Tensor], batch_size: int | None = None
) -> Responses:
    """Return the standard deviation of every 3x3 layer's response, by layer name, over uint8 images (N, H, W, 3).

    `to_input` turns a batch of images into what the network takes. The model is put in evaluation mode.
    """
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in _norms_after_3x3(model)}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            values = output.double()
            sums[name] += torch.stack(
                (torch.tensor(float(values.numel())), values.sum().cpu(), values.square().sum().cpu())
            )

        return add

    hooks = [norm.register_forward_hook(watch(name)) for name, norm in _norms_after_3x3(model).items()]
    model.eval()
    batch_size = batch_size or images_at_a_time(images)
    for start in range(0, len(images), batch_size):
        model(to_input(torch.from_numpy(np.array(images[start : start + batch_size]))))
    for hook in hooks:
        hook.remove()
    return {name: _standard_deviation(*totals.tolist()) for name, totals in sums.items()}


def _standard_deviation(count: float, total: float, squares: float) -> float:
    return float(max(squares / count - (total / count) ** 2, 0.0) ** 0.5)


def _norms_after_3x3(model: ResNet) -> dict[str, nn.Module]:
    """Return the batch norm after each 3x3 convolution, under the convolution's name, in order."""
    modules = dict(model.named_modules())
    return {
        name: modules[name.replace("conv", "bn")]
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }


def gradient_norms(model: ResNet) -> dict[str, float]:
    """Return the Euclidean norm of the gradient of each convolution's and the classifier's weights, in order."""
    return {
        name.removesuffix(".weight"): float(parameter.grad.norm())
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and parameter.grad is not None
    }
