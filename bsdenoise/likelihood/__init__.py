"""What network outputs mean: one Gaussian per pixel or a point estimate, MAP, posterior, and SURE."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
