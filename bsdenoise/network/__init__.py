"""Networks that denoise: the blind-spot network, the plain U-Net, and the layers that they are built of."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
