"""Bridges: trained maps from sender states to soft tokens of the receiver."""

from telepathy.bridges.base import Bridge, BridgeConfig, bridge_config, build_bridge, load_bridge, register
from telepathy.bridges.perceiver import PerceiverBridge
from telepathy.bridges.pooled import LinearBridge, MeanPoolBridge, MLPBridge

__all__ = [
    "Bridge",
    "BridgeConfig",
    "LinearBridge",
    "MLPBridge",
    "MeanPoolBridge",
    "PerceiverBridge",
    "bridge_config",
    "build_bridge",
    "load_bridge",
    "register",
]
