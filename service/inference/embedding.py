"""An image's embedding: the network's pooled features, which lie close together for images that look alike."""

import numpy as np
from numpy.typing import NDArray

from service.inference.classifier import Classification

OUTPUT = "embedding"


def embedding_of(classification: Classification, *, normalize: bool) -> NDArray[np.float32]:
    """Return the embedding (D,), little-endian float32; of length 1 if wanted, unless all of it is 0."""
    values = np.ascontiguousarray(classification.outputs[OUTPUT], dtype="<f4")
    length = float(np.linalg.norm(values))
    return (values / length).astype("<f4") if normalize and length else values
