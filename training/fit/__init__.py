"""Fine-tuning a head: recipes, the training loop, its folder and reports."""
