"""From PyTorch to ONNX: bundles, their verification, and the weights. Imports torch and onnx."""
