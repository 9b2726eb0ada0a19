"""A network as the file that `service` runs: uint8 pixels in; probabilities, embedding, classes, maps and energy out.

The graph scales, normalizes and transposes by itself, so no server can do it differently. Batch norm is folded into
the convolutions. Everything else in the file is its model card.
"""

import copy
import itertools
import logging
import warnings

import onnx
import torch
from onnx.checker import ValidationError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.errors import ExportError
from service.model_files.card import METADATA_KEY, ModelCard, Preprocessing
from service.model_files.confidence import ENERGY
from training.networks.resnet import BasicBlock, Bottleneck, ResNet, ZeroPadShortcut

INPUT = "images"
OUTPUTS = ("probabilities", "embedding", "top_indices", "class_maps", ENERGY)
OPSET = 20  # of ai.onnx
_TOP = 5  # classes in `top_indices` and `class_maps`
_LARGEST_BATCH = 65_536  # an upper bound that the exporter requires; it does not appear in the file
# The tracer's metadata of each node: call stacks, with paths of the machine.
_NOTES = ("metadata_props", "doc_string")


class Normalize(nn.Module):
    """uint8 pixels (N, H, W, 3) to floats (N, 3, H, W) with mean 0 and standard deviation 1, as in training."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        deviation = torch.tensor(preprocessing.standard_deviation, dtype=torch.float64)
        self.register_buffer("mean", (255 * mean).float().view(3, 1, 1))
        self.register_buffer("scale", (1 / (255 * deviation)).float().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        # Not folded into the first convolution: its padding is zeros after the normalization, not before it.
        return (images.permute(0, 3, 1, 2).float() - self.mean) * self.scale


class Deployed(nn.Module):
    """A network with all additions of the model file. `forward` returns the file's outputs, in their order.

    Images are normalized in float32 and the outputs are float32, for any precision of the network.
    """

    temperature: Tensor

    def __init__(self, network: ResNet, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.network = network
        self.top = min(_TOP, network.num_classes)
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.network.features(self.normalize(images).to(self.network.fc.weight.dtype))
        embedding = features.mean(dim=(2, 3))
        logits = self.network.fc(embedding).float()
        calibrated = logits / self.temperature
        probabilities = torch.softmax(calibrated, dim=1)
        top_indices = logits.topk(self.top, dim=1).indices
        # Class activation maps (Zhou et al. 2016): their mean over the map, plus the bias, is the class's logit.
        rows = self.network.fc.weight[top_indices]
        class_maps = (rows @ features.flatten(2)).reshape(-1, self.top, *features.shape[2:])
        energy = torch.logsumexp(calibrated, dim=1, keepdim=True)
        return probabilities, embedding.float(), top_indices, class_maps.float(), energy


def to_onnx(network: ResNet, preprocessing: Preprocessing, temperature: float) -> onnx.ModelProto:
    """Return the content of a model file for a network of `deployable`, without a card yet.

    Raises ExportError if the ONNX checker rejects it.
    """
    deployed = Deployed(network, preprocessing, temperature).eval()
    # A batch of two: the tracer would treat one as a constant.
    example = torch.zeros((2, *preprocessing.crop, 3), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # warns about optional packages
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter uses its own deprecated functions
        program = torch.onnx.export(
            deployed,
            (example,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: batch}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("the exporter gave no graph; nothing was written")
    model = program.model_proto
    remove_notes(model)
    check_graph(model)
    return model


def with_card(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the model file: the graph with its card. Raises ExportError if the ONNX checker rejects it."""
    carded = onnx.ModelProto()
    carded.CopyFrom(model)
    onnx.helper.set_model_props(carded, {METADATA_KEY: card.model_dump_json()})
    check_graph(carded)
    return serialise(carded)


def serialise(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def deployable(network: ResNet) -> ResNet:
    """Return an equivalent network with fewer operations: batch norm folded, shortcuts A as convolutions."""
    copied = copy.deepcopy(network).eval()
    for parent in list(copied.modules()):
        _fold_batch_norm(parent)
        if isinstance(parent, BasicBlock | Bottleneck) and isinstance(parent.downsample, ZeroPadShortcut):
            parent.downsample = _as_convolution(parent.downsample, parent.conv1.in_channels)
    return copied


def _fold_batch_norm(parent: nn.Module) -> None:
    for (name, module), (norm_name, norm) in itertools.pairwise(list(parent.named_children())):
        if isinstance(module, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(module.double(), norm.double()).float())
            setattr(parent, norm_name, nn.Identity())


def _as_convolution(shortcut: ZeroPadShortcut, channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution of ones and zeros.

    Slices and paddings would change the layout for convolutions and back: 4% of ResNet-20's time.
    """
    convolution = nn.Conv2d(channels, channels + shortcut.new_channels, 1, shortcut.stride, bias=False)
    nn.init.dirac_(convolution.weight)
    return convolution


def remove_notes(model: onnx.ModelProto) -> None:
    """Remove the metadata that tools wrote: names of files, and shapes that follow from the graph."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *_values(model.graph)):
        for note in _NOTES:
            part.ClearField(note)
    del model.graph.value_info[:]


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def check_graph(model: onnx.ModelProto) -> None:
    """Raise ExportError if the ONNX checker rejects a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except ValidationError:
        raise ExportError("the ONNX checker refuses the exported graph; nothing was written") from None
