"""From a trained network to one self-describing .onnx file that the service runs."""
