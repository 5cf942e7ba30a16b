"""Commands that export, and those that need an export: weights, bundles, the CPU and GPU benchmarks."""
