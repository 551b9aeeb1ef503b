"""Self-supervised image denoising with blind-spot networks, on TensorFlow and Keras 3.

The names below are imported on first use, so that `import bsdenoise` stays quick. The Keras classes of this
package register themselves as soon as both `keras` and `bsdenoise` are imported, in either order; that is
all that `keras.models.load_model` needs.
"""

import importlib
from typing import Any

import wrapt

__version__ = "0.1.0"

_MODULES = ("client", "denoiser", "export", "layers", "likelihood", "losses", "network", "noise", "presets")
_EXPORTS = {
    "Denoiser": "denoiser",
    "GaussianLikelihood": "likelihood",
    "Posterior": "posterior",
    "blind_spot_network": "network",
    "unet": "network",
    "GaussianNLL": "losses",
    "GaussianNoise": "noise",
}
__all__ = sorted([*_EXPORTS, *_MODULES])


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f"bsdenoise.{_EXPORTS[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"bsdenoise.{name}")
    else:
        raise AttributeError(f"module 'bsdenoise' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return [*__all__, "__version__"]


@wrapt.when_imported("keras")
def _register_keras_classes(_: Any) -> None:
    """Registers layers, losses and the model with Keras once Keras is there.

    It runs inside of `import keras`, even of one at the top of a module of this package, which is then half loaded.
    """
    importlib.import_module("bsdenoise.denoiser")
