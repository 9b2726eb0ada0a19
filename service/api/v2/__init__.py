"""The Open Inference Protocol (V2) over HTTP, as Triton's clients speak it: everything under /v2."""
