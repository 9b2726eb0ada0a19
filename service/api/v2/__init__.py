"""The Open Inference Protocol (V2) over HTTP, compatible with Triton's clients: all routes under /v2."""
