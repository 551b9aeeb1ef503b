"""`bsdenoise export`: a trained model in, a numbered SavedModel for TF-Serving out."""

from bsdenoise.cli import models
from bsdenoise.config import ExportConfig


def run(config: ExportConfig) -> int:
    """Writes the next version of a model, and says where it is and what it answers to.

    Raises:
        ValueError: If there is no model, or the version cannot be written there.
    """
    if config.version is not None and config.version < 1:
        raise ValueError(f"--version must be at least 1. Received: {config.version}.")
    if config.out.exists() and not config.out.is_dir():
        raise ValueError(f"{config.out}: is a file. Expected a folder of versions.")
    if (config.out / "saved_model.pb").exists():
        raise ValueError(f"{config.out}: is itself an exported version. Expected the folder of versions that holds it.")
    denoiser = models.load_denoiser(config.model)

    from bsdenoise import export  # here, because it loads TensorFlow

    version = export.next_version(config.out) if config.version is None else config.version
    folder = export.export_saved_model(
        denoiser, config.out / str(version), max_pixels=config.max_pixels, tile=config.tile
    )
    low, high = denoiser.noise.low * denoiser.scale, denoiser.noise.high * denoiser.scale
    sigma = f"{low:.4g}" if denoiser.noise.is_known else f"estimated per image, {low:.4g} to {high:.4g}"
    print(f"{folder}: {denoiser.channels} channel(s); its own sigma: {sigma}")
    print(f"units of pixels and sigma: {denoiser.units}")
    print(f"signatures: {', '.join(export.signature_names(denoiser.channels))}")
    print(f"limit: {config.max_pixels} pixels per request and per image file")
    return 0
