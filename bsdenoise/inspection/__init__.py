"""What noise images have: measured on the noisy images alone, by the decisions that `denoise` goes by."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
