"""Image files in, denoised image files out: read, computed and written at the same time, in bounded memory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
