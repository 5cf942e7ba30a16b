"""From PyTorch to ONNX: writing and verifying bundles, and downloading the weights. Imports torch and onnx."""
