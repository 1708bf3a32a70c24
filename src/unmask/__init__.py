"""Diffusion language models: train, tune, run, measure and serve them."""

__version__ = "0.1.0"
