"""`Denoiser`: a network, its noise model and its likelihood, joined to one Keras model that denoises images."""

from bsdenoise.denoiser.model import Denoiser as Denoiser
from bsdenoise.denoiser.model import Moments as Moments
