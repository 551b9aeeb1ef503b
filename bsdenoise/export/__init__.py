"""From a denoiser to what TF-Serving loads: a SavedModel in a folder of versions, with warm-up and a description."""

from bsdenoise.export.description import FILE_NAME as DESCRIPTION_FILE
from bsdenoise.export.saved_model import DEFAULT_MAX_PIXELS, MOST_PIXELS, export_saved_model
from bsdenoise.export.signatures import signature_names
from bsdenoise.export.versions import next_version, retire
from bsdenoise.export.warm_up import parse_size

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "DESCRIPTION_FILE",
    "MOST_PIXELS",
    "export_saved_model",
    "next_version",
    "parse_size",
    "retire",
    "signature_names",
]
