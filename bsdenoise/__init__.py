"""Self-supervised image denoising with blind-spot networks, on TensorFlow and Keras 3.

The names of `__init__.pyi` are imported on first use, so that `import bsdenoise` stays quick. The Keras classes of this
package register themselves as soon as both `keras` and `bsdenoise` are imported, in either order; that is
all that `keras.models.load_model` needs.
"""

import importlib
from typing import Any

import lazy_loader
import wrapt

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("keras")
def _register_keras_classes(_: Any) -> None:
    """Register layers, losses and the model with Keras once Keras is there.

    It runs inside of `import keras`, even of one at the top of a module of this package, which is then half loaded.
    """
    importlib.import_module("bsdenoise.denoiser")
