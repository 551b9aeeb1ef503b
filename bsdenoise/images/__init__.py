"""Image files in and out: formats, axes, units, and pixels that hold no measurement."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
