"""Networks of every depth with random weights: the file answers as PyTorch does, on real photos, in every output."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from export.graph.to_onnx import Normalize, deployable, serialise, to_onnx
from export.sources.network_spec import NetworkSpec
from export.sources.sample_images import sample_pixels, to_pixels
from export.sources.trained import Source, from_random_weights
from export.verification.parity import BATCH_SIZES, check_parity
from service.engine.engine import Engine
from service.images.preprocessing import Pixels

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos beside the checkout")


def photos(source: Source) -> Pixels:
    return to_pixels((path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))), source.preprocessing)


def check_everything(source: Source, pixels: Pixels) -> None:
    network = deployable(source.network)
    engine = Engine(serialise(to_onnx(network, source.preprocessing, 1.0)), providers="cpu", intra_op_threads=2)
    parity = check_parity(engine, source.network, source.preprocessing, 1.0, pixels)  # refuses above 1e-5
    assert parity.batch_sizes == BATCH_SIZES == (1, 2, 3, 8, 16)
    assert parity.images == parity.agreeing_images == len(pixels)
    _, best = engine.run(pixels)
    labels = Counter(best[:, 0].tolist())
    assert len(labels) >= 4 and labels.most_common(1)[0][1] <= 0.75 * len(pixels)
    class_maps_are_pytorchs(source, engine, pixels[:8])


def class_maps_are_pytorchs(source: Source, engine: Engine, pixels: Pixels) -> None:
    top_indices, maps, embedding = engine.run(pixels, outputs=("top_indices", "class_maps", "embedding"))
    with torch.inference_mode():
        features = source.network.features(Normalize(source.preprocessing)(torch.from_numpy(pixels)))
        every_map = torch.einsum("cd,ndhw->nchw", source.network.fc.weight, features).numpy()
        logits = source.network.fc(features.mean(dim=(2, 3)))
    np.testing.assert_array_equal(top_indices, logits.topk(5).indices)
    np.testing.assert_allclose(embedding, features.mean(dim=(2, 3)), rtol=0, atol=1e-4 * float(features.max()))
    expected = np.stack([every_map[image, classes] for image, classes in enumerate(top_indices)])
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-4 * np.abs(every_map).max())


@pytest.mark.long
def test_a_small_network_answers_as_pytorch_does() -> None:
    source = from_random_weights(NetworkSpec(depth=14), None, seed=3)
    check_everything(source, sample_pixels(source.preprocessing))


@pytest.mark.shared
@needs_photos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("depth", [18, 20, 34, 50, 56, 101, 110, 152])
def test_a_network_of_every_depth_answers_as_pytorch_does_on_photos(depth: int) -> None:
    source = from_random_weights(NetworkSpec(depth=depth), None, seed=0)
    check_everything(source, photos(source))
