"""From PyTorch to ONNX: writes and verifies bundles, downloads the weights. Imports torch and onnx."""
