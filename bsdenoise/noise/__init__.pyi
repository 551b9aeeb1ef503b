from .estimation import estimate_sigma as estimate_sigma
from .estimation import refine_sigma as refine_sigma
from .estimation import untrained_variance as untrained_variance
from .gaussian import GaussianNoise as GaussianNoise
from .gaussian import parse as parse
from .spec import is_relative as is_relative
from .spec import parse_level as parse_level
from .spec import parse_range as parse_range
