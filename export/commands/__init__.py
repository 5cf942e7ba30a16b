"""Commands that export, and commands that need an export: weights, bundles, the CPU and GPU benchmarks."""
