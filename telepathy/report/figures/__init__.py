"""Figures, a module a kind; each reads files of results and writes one picture as PDF and as SVG."""
