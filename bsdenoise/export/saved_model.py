"""The SavedModel that TF-Serving runs: the whole denoising step in one graph, pixels or image files in, the same out.

`keras.export.ExportArchive` writes it: it finds the variables by itself, and makes each function a signature whose
tensors are named as the `TensorSpec`s and the dictionary of results say.
"""

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from bsdenoise.denoiser import Denoiser
from bsdenoise.export import manifest, trial
from bsdenoise.export import warm_up as warm_up_requests
from bsdenoise.export.description import FILE_NAME, describe
from bsdenoise.export.graph.tiles import Tiles
from bsdenoise.export.signatures import signatures
from bsdenoise.export.versions import check_free, published
from bsdenoise.inference import self_ensemble, tiling

# 4096 × 4096. Two RGB requests of so many fit into the 12 GiB of the container, for the compact networks; clients cut
# larger images.
DEFAULT_MAX_PIXELS = 2**24
MOST_PIXELS = 2**29  # at least as many are too large for TensorFlow's image decoders, and for a message to a server


def export_saved_model(
    denoiser: Denoiser,
    directory: str | Path,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tile: int | None = None,
    overlap: int | None = None,
    untiled_pixels: int | None = None,
    tta: int = 1,
    warm_up: Sequence[tuple[int, int]] = (),
    report: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write a denoiser as a TensorFlow SavedModel, whole or not at all.

    It is loaded and asked before it gets its name: what does not load, or does not answer, is not published.
    `SHA256SUMS` holds the check sums of its files.

    One graph serves all image and batch sizes. Its signatures, of which the `encoded` pair exists for grey and RGB
    images whose pixels are fractions of full scale; of a method without a posterior only `serving_default`, `encoded`
    and `describe` exist:

    | signature | inputs | outputs |
    | --- | --- | --- |
    | `serving_default` | `image` float32 (B, H, W, C) | `denoised`, with the model's own σ |
    | `with_sigma` | `image`, `sigma` float32 (B,) | `denoised` |
    | `encoded` | `image_bytes` string (B,), PNG or JPEG | `denoised_bytes` string (B,), PNG with as many bits |
    | `encoded_with_sigma` | `image_bytes`, `sigma` | `denoised_bytes` |
    | `posterior` | `image`, `sigma` | `denoised`, `mean`, `std`, `estimated_psnr` (B,), −1 where it is withheld |
    | `own_sigma` | `image` | `sigma` (B,), what the first and the third take where none is given |
    | `describe` | `format` string (B,), "json" | `description` string (B,), what `serving.json` beside the graph says |

    Of a model for white noise of a range, `serving_default` and `encoded` find out whether noise grows with the signal
    (`Denoiser.stabilized`), and there are three signatures more, whose `noise`, float32 (B, 3), is gain, σ and
    pedestal: `with_noise`, `encoded_with_noise` and `own_noise`. Of a model whose noise is more than a σ these stand in
    the places of those named after it; they and `posterior` take or give `noise`, float32 (B, P), all parameters.

    What cannot be denoised is refused before anything is computed, with an `InvalidArgumentError` of one sentence.
    Large images are computed one tile at a time, as `Denoiser.denoise` does it.

    Args:
        denoiser: The denoiser; its network must compute in float32.
        directory: The version folder to make, such as `export/1`. It may exist if it is empty.
        max_pixels: Largest B·H·W of `image`, and largest H·W of each image file, which is read from its header before
            it is decoded. The memory of a request grows with it: `serving.json` holds how much is expected.
        tile: Largest side of a tile in pixels, a multiple of the pooling grid; smaller ones need less memory.
        overlap: Context in pixels that a tile has on every inner side, as for `Denoiser.denoise`.
        untiled_pixels: Images, and batches of images, of at most as many pixels are computed in one pass. By default a
            megapixel, or one tile if `tile` is smaller.
        tta: How many copies of each image are denoised and averaged, 1, 2, 4 or 8, as for `Denoiser.denoise`; of each
            tile where there are tiles.
        warm_up: Heights and widths in pixels of images that a server tries before it serves the version.
        report: Called with what is done, at the beginning of each step.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something, what was written cannot be loaded or used, the network does not
            compute in float32, Keras does not run on TensorFlow, or `max_pixels`, `tile`, `overlap`, `untiled_pixels`,
            `tta` or `warm_up` does not fit.
        OSError: If the folder cannot be written.

    Example:
        >>> folder = bsdenoise.export.export_saved_model(denoiser, "export/1")  # doctest: +SKIP
        >>> served = tf.saved_model.load(folder).signatures["with_sigma"]  # doctest: +SKIP
        >>> denoised = served(image=noisy, sigma=[25 / 255])["denoised"]  # doctest: +SKIP
    """
    directory = Path(directory)
    check_free(directory)
    _check_denoiser(denoiser)
    if not 1 <= max_pixels < MOST_PIXELS:
        raise ValueError(
            f"`max_pixels` must be at least 1 and less than {MOST_PIXELS}. Received: max_pixels={max_pixels}."
        )
    self_ensemble.check(tta, denoiser.blind_spot)
    warm_up_requests.check_sizes(warm_up, max_pixels)
    tiles = _tiles(denoiser.described_network(), tile, overlap, untiled_pixels)
    description = describe(denoiser, max_pixels, tiles, tta)
    text = json.dumps(description, indent=2) + "\n"
    report("tracing the signatures")
    archive = keras.export.ExportArchive()
    for name, (function, specs) in signatures(denoiser, max_pixels, tiles, text, tta).items():
        # Keras traces an endpoint, and TensorFlow does it again to save it: so what they trace is a call of a graph.
        graph = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
        archive.add_endpoint(name, graph, specs)
    with published(directory) as temporary:
        try:
            report("writing the graph and the weights")
            archive.write_out(temporary, verbose=False)
            (temporary / FILE_NAME).write_text(text)
            _try(temporary, directory, description, text, warm_up, report)
            manifest.write(temporary)
        except tf.errors.ResourceExhaustedError as error:
            raise OSError(errno.ENOSPC, "cannot be written: no space left on device", str(directory)) from error
    return directory


def _try(folder, directory, description, text, sizes, report):
    """Load and ask what was written, and store the warm-up requests."""
    report("loading what was written, and calling each signature once")
    try:
        with trial.opened(folder) as call:
            trial.check(call, description, text)
            if sizes:
                report("trying the requests for warm-up")
                warm_up_requests.write(folder, sizes, description, call)
    except trial.TrialError as error:
        raise ValueError(f"{directory}: not published, because what was written cannot be used: {error}") from error


def _check_denoiser(denoiser):
    """Refuse what would not give float32 computed by TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "A SavedModel is written by Keras on TensorFlow: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()}."
        )
    denoiser.check_blindness()
    for layer in denoiser.described_network().all_layers():
        if layer.dtype_policy.compute_dtype != "float32":
            raise ValueError(
                "An exported model computes in float32. Build the network again with dtype='float32' and give it the "
                f"weights by `set_weights`. Received: layer {layer.name!r} with {layer.dtype_policy.name}."
            )


def _tiles(network, tile, overlap, untiled_pixels):
    """Choose what is not given, and check what is."""
    grid = network.grid
    size, overlap = tiling.choose(grid, tile, overlap, network.context)
    if untiled_pixels is None:
        untiled_pixels = tiling.MAX_UNTILED_PIXELS if tile is None else min(tiling.MAX_UNTILED_PIXELS, tile**2)
    if untiled_pixels < 0:
        raise ValueError(f"`untiled_pixels` must not be negative. Received: untiled_pixels={untiled_pixels}.")
    return Tiles(grid, size, overlap, untiled_pixels)
