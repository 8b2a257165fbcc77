"""Baselines and controls; the bridge itself is in `telepathy.bridges`."""
