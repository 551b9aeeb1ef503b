"""What each command can be told: one frozen dataclass per command, the only source of its flags and their help.

The help of a flag is the `#:` comment above its field, joined to one paragraph; a line of it that begins with anything
but a letter would start a new line in the terminal.
"""

from bsdenoise.config.app import AppConfig
from bsdenoise.config.datasets import DatasetsConfig
from bsdenoise.config.denoise import DenoiseConfig
from bsdenoise.config.evaluate import EvaluateConfig
from bsdenoise.config.export import ExportConfig
from bsdenoise.config.figure import FigureConfig
from bsdenoise.config.guard import GuardConfig
from bsdenoise.config.inspect import InspectConfig
from bsdenoise.config.prepare import PrepareConfig
from bsdenoise.config.presets import PresetsConfig
from bsdenoise.config.serve import ServeConfig
from bsdenoise.config.train import (
    ClusterConfig,
    DataConfig,
    LoggingConfig,
    NetworkConfig,
    NoiseConfig,
    OptimisationConfig,
    TrainConfig,
)

__all__ = [
    "AppConfig",
    "ClusterConfig",
    "DataConfig",
    "DatasetsConfig",
    "DenoiseConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FigureConfig",
    "GuardConfig",
    "InspectConfig",
    "LoggingConfig",
    "NetworkConfig",
    "NoiseConfig",
    "OptimisationConfig",
    "PrepareConfig",
    "PresetsConfig",
    "ServeConfig",
    "TrainConfig",
]
