"""`bsdenoise export`: a trained model in, a numbered SavedModel for TF-Serving out."""

import json

from bsdenoise.cli import libraries, models, terminal
from bsdenoise.config import ExportConfig
from bsdenoise.network import blindness


def run(config: ExportConfig) -> int:
    """Write the next version of a model, and say where it is and what it answers to.

    Raises:
        ValueError: If there is no model, it has no such blind spot, or the version cannot be written there.
    """
    if config.out.exists() and not config.out.is_dir():
        raise ValueError(f"{config.out}: is a file. Expected a folder of versions.")
    if (config.out / "saved_model.pb").exists():
        raise ValueError(f"{config.out}: is itself an exported version. Expected the folder of versions that holds it.")
    blind_spot = None if config.blind_spot is None else blindness.of_flag(config.blind_spot)
    libraries.check_backend("export")
    denoiser = models.load_denoiser(config.model)
    if blind_spot is not None:
        denoiser = denoiser.with_blind_spot(blind_spot)

    from bsdenoise import export  # here, because it loads TensorFlow

    sizes = [export.parse_size(text) for text in config.warm_up]
    version = export.next_version(config.out) if config.version is None else config.version
    folder = config.out / str(version)
    shown = terminal.bar if sizes else terminal.status
    with shown(f"writing {folder}") as change:
        export.export_saved_model(
            denoiser,
            folder,
            max_pixels=config.max_pixels,
            tile=config.tile,
            tta=config.tta,
            warm_up=sizes,
            report=change,
        )
    origin = "" if denoiser.noise.is_known else ", estimated per image"
    words = denoiser.noise.in_words(denoiser.offset, denoiser.scale)
    print(f"{folder}: {denoiser.channels} channel(s); its own {words}{origin}")
    print(f"units of pixels and noise: {denoiser.units}")
    names = json.loads((folder / export.DESCRIPTION_FILE).read_text())["signatures"]
    print(f"signatures: {', '.join(names)}")
    print(f"limit: {config.max_pixels} pixels per request and per image file")
    if config.tta > 1:
        print(f"self-ensemble: mean of {config.tta} copies of each image")
    if config.keep is not None:
        for retired in export.retire(config.out, config.keep, but=version):
            print(f"removed: {retired}")
    return 0
