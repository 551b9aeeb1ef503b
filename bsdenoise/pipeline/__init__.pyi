from .run import DenoisedFile as DenoisedFile
from .run import denoise_files as denoise_files
