from .run import DenoisedFile as DenoisedFile
from .run import Watcher as Watcher
from .run import denoise_files as denoise_files
from .run import denoised as denoised
