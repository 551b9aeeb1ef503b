"""`bsdenoise export`: a trained model in, a numbered SavedModel for TF-Serving out."""

import json

from bsdenoise.cli import libraries, models, terminal
from bsdenoise.config import ExportConfig


def run(config: ExportConfig) -> int:
    """Write the next version of a model, and say where it is and what it answers to.

    Raises:
        ValueError: If there is no model, or the version cannot be written there.
    """
    if config.out.exists() and not config.out.is_dir():
        raise ValueError(f"{config.out}: is a file. Expected a folder of versions.")
    if (config.out / "saved_model.pb").exists():
        raise ValueError(f"{config.out}: is itself an exported version. Expected the folder of versions that holds it.")
    libraries.check_backend("export")
    denoiser = models.load_denoiser(config.model)

    from bsdenoise import export  # here, because it loads TensorFlow

    sizes = [export.parse_size(text) for text in config.warm_up]
    version = export.next_version(config.out) if config.version is None else config.version
    folder = config.out / str(version)
    shown = terminal.bar if sizes else terminal.status
    with shown(f"writing {folder}") as change:
        export.export_saved_model(
            denoiser, folder, max_pixels=config.max_pixels, tile=config.tile, warm_up=sizes, report=change
        )
    origin = "" if denoiser.noise.is_known else ", estimated per image"
    words = denoiser.noise.in_words(denoiser.offset, denoiser.scale)
    print(f"{folder}: {denoiser.channels} channel(s); its own {words}{origin}")
    print(f"units of pixels and noise: {denoiser.units}")
    names = json.loads((folder / export.DESCRIPTION_FILE).read_text())["signatures"]
    print(f"signatures: {', '.join(names)}")
    print(f"limit: {config.max_pixels} pixels per request and per image file")
    if config.keep is not None:
        for retired in export.retire(config.out, config.keep, but=version):
            print(f"removed: {retired}")
    return 0
