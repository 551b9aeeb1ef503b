"""The methods of the paper's Table 1: what a network is shown, and what its outputs are compared with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
