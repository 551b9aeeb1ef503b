from . import client as client
from . import denoiser as denoiser
from . import export as export
from . import images as images
from . import likelihood as likelihood
from . import methods as methods
from . import network as network
from . import noise as noise
from . import presets as presets
from .config import TrainConfig as TrainConfig
from .denoiser import Denoiser as Denoiser
from .likelihood import GaussianLikelihood as GaussianLikelihood
from .likelihood import Posterior as Posterior
from .loading import load as load
from .methods import losses as losses
from .methods.losses import GaussianNLL as GaussianNLL
from .network import blind_spot_network as blind_spot_network
from .network import layers as layers
from .network import unet as unet
from .noise import GaussianNoise as GaussianNoise
from .noise import PoissonGaussianNoise as PoissonGaussianNoise
from .noise import PoissonNoise as PoissonNoise
from .pipeline import DenoisedFile as DenoisedFile
from .pipeline import denoise_files as denoise_files
from .training.loop import train as train

__version__: str
