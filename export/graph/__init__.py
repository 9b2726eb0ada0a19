"""From a network to an ONNX graph in fp32, fp16 or int8."""
