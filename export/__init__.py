"""torch → ONNX: writing and verifying a bundle, fetching the weights."""
