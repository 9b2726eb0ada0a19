"""Embeddings: the network's pooled features, which are close to each other for similar images."""

import numpy as np
from numpy.typing import NDArray

from service.inference.results import Classification

OUTPUT = "embedding"


def embedding_of(classification: Classification, *, normalize: bool) -> NDArray[np.float32]:
    """Return the embedding, little-endian float32 (D,). `normalize` scales it to length 1, except a zero vector."""
    values = np.ascontiguousarray(classification.outputs[OUTPUT], dtype="<f4")
    length = float(np.linalg.norm(values))
    return (values / length).astype("<f4") if normalize and length else values
