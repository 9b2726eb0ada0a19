"""ONNX Runtime sessions on CPUs and GPUs: arrays in, arrays out."""
