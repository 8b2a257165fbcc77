"""One training loop for whatever learns: bridge, soft prompt, LoRA."""
