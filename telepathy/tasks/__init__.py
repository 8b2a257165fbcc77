"""Tasks as data: one YAML each, and what reads it."""
