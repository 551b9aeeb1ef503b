"""The graph's tiles are those of the plan, and their results those of `Denoiser.denoise`."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from exported import (
    ROUTES,
    Server,
    decoded,
    export_some,
    make_denoiser,
    noisy_batch,
    noisy_pixels,
    pillow_file,
    png_file,
    strings,
)
from hypothesis import given, settings
from test_tiling import plans

from bsdenoise.export import export_saved_model
from bsdenoise.export.graph import tiles
from bsdenoise.inference import tiling
from bsdenoise.network import context
from bsdenoise.noise import GaussianNoise

TILE, OVERLAP, UNTILED = 32, 4, 1500
EXACT_TILE, EXACT_OVERLAP = 40, 16  # the reach of a network of depth 1 is 15 pixels
SHAPES = {
    "several both ways": (1, 57, 45),
    "a batch": (2, 45, 38),
    "one row of tiles": (2, 7, 190),
    "a batch of images that need no tiles": (2, 37, 39),
    "just over the limit": (1, 39, 39),
}
ROUNDING = 5e-5  # `denoise` computes small images op by op, random weights make numbers of all sizes
RANGE = GaussianNoise(5 / 255, 50 / 255)


@settings(deadline=None)
@given(plans())
def test_the_graph_has_the_same_plan(arguments):
    height, width, tile, overlap, grid = arguments
    for size in (height, width):
        spans = [(piece.window[1], piece.target[1]) for piece in tiling.plan(1, size, tile, overlap, grid)]
        expected = [(window.start, window.stop, target.start, target.stop) for window, target in spans]
        number = int(tiles.count(tf.constant(size), tile, overlap))
        found = [tiles.span(tf.constant(index), tf.constant(size), tile, overlap) for index in range(number)]
        assert [tuple(int(value) for value in span) for span in found] == expected


@pytest.mark.parametrize("height, width", [(1, 1), (4, 8), (5, 9), (1, 100)])
def test_padding_counts_as_in_python(height, width):
    found = tiles.padded_pixels(tf.constant([3, height, width, 2]), 4)
    assert int(found) == 3 * tiling.padded_pixels(height, width, 4)


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def denoiser():
    return make_denoiser(3, RANGE, depth=2)


@pytest.fixture(scope="module")
def folder(denoiser, tmp_path_factory):
    target = tmp_path_factory.mktemp("tiled") / "1"
    return export_saved_model(denoiser, target, tile=TILE, overlap=OVERLAP, untiled_pixels=UNTILED)


def in_tiles(denoiser, image, sigma):
    """The posterior by the tiles of the plan, which small images are too few pixels for."""
    is_small = tiling.padded_pixels(*image.shape[1:3], denoiser.grid) <= UNTILED
    return denoiser.posterior(image, sigma, **({} if is_small else {"tile": TILE, "overlap": OVERLAP}))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.usefixtures("compiled")
def test_tiles_of_the_graph_equal_those_of_denoise(shape, server, folder, denoiser):
    image, sigma = noisy_batch(denoiser, shape)
    assert shape[0] * shape[1] * shape[2] > UNTILED
    own = np.asarray(denoiser.own_sigma(image))  # of the whole images: tile by tile seams would show
    expected, by_own = in_tiles(denoiser, image, sigma), in_tiles(denoiser, image, own)
    if tiling.padded_pixels(*shape[1:], denoiser.grid) > UNTILED:  # the overlap is too small to hide how it is cut
        assert np.abs(expected.denoised - denoiser.denoise(image, sigma, tile=1 << 20)).max() > 1e-3
    for route in ROUTES if shape == (1, 39, 39) else ROUTES[-1:]:
        served = server.call(folder, "posterior", route=route, image=image, sigma=sigma)
        for key in ("denoised", "mean"):
            np.testing.assert_allclose(served[key], getattr(expected, key), atol=ROUNDING, err_msg=key)
        np.testing.assert_allclose(served["std"] ** 2, expected.std**2, atol=1e-6)
        psnr = np.where(np.isnan(expected.estimated_psnr), -1.0, np.maximum(expected.estimated_psnr, 0.0))
        np.testing.assert_allclose(served["estimated_psnr"], psnr, atol=1e-3)
        served = server.call(folder, "with_sigma", route=route, image=image, sigma=sigma)["denoised"]
        np.testing.assert_allclose(served, expected.denoised, atol=ROUNDING)
        served = server.call(folder, "serving_default", route=route, image=image)["denoised"]
        np.testing.assert_allclose(served, by_own.denoised, atol=ROUNDING)


@pytest.mark.usefixtures("compiled")
def test_files_of_several_sizes_in_tiles(server, folder, denoiser):
    files = [
        png_file(noisy_pixels(3, (41, 45), np.uint16, 1)),
        pillow_file(noisy_pixels(3, (33, 57), np.uint8, 2), "JPEG"),
        png_file(noisy_pixels(3, (9, 8), np.uint8, 3)),
    ]
    sigma = np.array([0.05, 0.1, 0.15], "float32")
    own = server.call(folder, "encoded", image_bytes=strings(*files))["denoised_bytes"]
    told = server.call(folder, "encoded_with_sigma", image_bytes=strings(*files), sigma=sigma)["denoised_bytes"]
    for index, data in enumerate(files):
        noisy = decoded(data)
        full_scale = np.iinfo(noisy.dtype).max
        unit = noisy[None].astype("float32") / np.float32(full_scale)
        for answer, level in ((own, np.asarray(denoiser.own_sigma(unit))), (told, sigma[index : index + 1])):
            exact = np.clip(full_scale * in_tiles(denoiser, unit, level).denoised[0].astype("float64"), 0, full_scale)
            assert np.abs(decoded(answer[index]) - exact).max() < 0.5 + 1e-5 * full_scale


@pytest.mark.parametrize("channels, options", [(1, {}), (2, {"offset": 100.0, "scale": 4000.0, "fractional": False})])
def test_tiles_with_enough_overlap_equal_one_pass(channels, options, server, tmp_path):
    """By default too: tiles of a given size, none for what fits into one, the overlap that hides them."""
    noise = RANGE if channels == 1 else GaussianNoise(0.1, 0.1)
    denoiser = make_denoiser(channels, noise, num_outputs=reference.num_outputs(channels, False), **options)
    names = "posterior", "serving_default"
    folder = export_some(denoiser, tmp_path / "1", *names, tile=EXACT_TILE, overlap=EXACT_OVERLAP)
    image, sigma = noisy_batch(denoiser, (1, 71, 53))
    whole = denoiser.posterior(image, sigma)
    served = server.call(folder, "posterior", image=image, sigma=sigma)
    tolerance = 1e-5 if channels == 1 else 1e-4 * denoiser.scale
    for key in ("denoised", "mean"):
        np.testing.assert_allclose(served[key], getattr(whole, key), rtol=1e-5, atol=tolerance)
    psnr = np.where(np.isnan(whole.estimated_psnr), -1.0, np.maximum(whole.estimated_psnr, 0.0))
    np.testing.assert_allclose(served["estimated_psnr"], psnr, atol=1e-3)
    served = server.call(folder, "serving_default", image=image)["denoised"]
    np.testing.assert_allclose(served, denoiser.denoise(image), rtol=1e-5, atol=tolerance)


@pytest.mark.usefixtures("compiled")
def test_without_arguments_the_graph_chooses_what_is_cut_and_how(denoiser, server, tmp_path, monkeypatch):
    monkeypatch.setattr(tiling, "MAX_UNTILED_PIXELS", UNTILED)
    monkeypatch.setattr(tiling, "TILE", TILE)
    monkeypatch.setattr(context, "MAX_CONTEXT", TILE // 4)  # more would make larger tiles
    target = export_some(denoiser, tmp_path / "1", "serving_default")
    for shape in [(1, 37, 39), (2, 45, 41)]:
        image, _ = noisy_batch(denoiser, shape)
        served = server.call(target, "serving_default", image=image)["denoised"]
        np.testing.assert_allclose(served, denoiser.denoise(image, tile=TILE), atol=ROUNDING)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"tile": 33}, "must be multiples of 4 with tile > 2"),
        ({"tile": 32, "overlap": 16}, "must be multiples of 4 with tile > 2.*tile=32, overlap=16"),
        ({"untiled_pixels": -1}, "`untiled_pixels` must not be negative.*-1"),
        ({"max_pixels": 0}, "`max_pixels` must be at least 1 and less than 536870912.*max_pixels=0"),
        ({"max_pixels": 2**29}, "`max_pixels` must be at least 1 and less than 536870912.*max_pixels=536870912"),
    ],
    ids=str,
)
def test_limits_that_do_not_fit_are_refused(arguments, sentence, denoiser, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        export_saved_model(denoiser, tmp_path / "1", **arguments)
    assert list(tmp_path.iterdir()) == []
