"""The one network that all peers serve: the same file, the same preprocessing, the same answer as the service's.

Each peer's process loads it from the environment: BENCHMARK_MODEL is the ONNX file, BENCHMARK_CORES how many cores
the machine has.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.images.preprocessing import image_to_pixels

CORES = int(os.environ.get("BENCHMARK_CORES", "1"))
IS_SMALL = os.environ.get("BENCHMARK_IS_SMALL") == "1"  # under 5 ms an image: worth batches even on a CPU


class Network:
    """One session of ONNX Runtime. `spins` is its own default: quick for one caller, costly for several."""

    def __init__(self, *, intra_op_threads: int, spins: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCHMARK_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        card = json.loads(self._session.get_modelmeta().custom_metadata_map["model_card"])
        steps = card["preprocessing"]
        self._labels = card["labels"]
        self._steps = {
            "shorter_side": steps["shorter_side"],
            "crop": tuple(steps["crop"]),
            "interpolation": steps["interpolation"],
        }

    def pixels(self, image: bytes) -> NDArray[np.uint8]:
        """Return what the network sees of one image file, uint8 (height, width, 3)."""
        return image_to_pixels(image, **self._steps)[0]

    def classify(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return the answer to each image file, all run as one batch."""
        return self.answers(np.stack([self.pixels(image) for image in images]))

    def answers(self, images: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Return the five best labels of each image."""
        rows, best = self._session.run(["probabilities", "top_indices"], {"images": images})
        return [
            {
                "predictions": [
                    {"label": self._labels[index], "index": index, "probability": round(float(row[index]), 6)}
                    for index in indices.tolist()
                ]
            }
            for row, indices in zip(rows, best, strict=True)
        ]
