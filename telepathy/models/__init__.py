"""Find, pin, verify and load language models."""
