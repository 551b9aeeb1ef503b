"""Noise: how it is declared, how images are corrupted, what the likelihood needs to know, and how it is estimated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
