"""Files in, files out: the graph against the Keras model and independent codecs."""

import os

import numpy as np
import pytest
from bad_input import chunk, interlaced_png, png_by_hand
from exported import Server, decoded, export_some, make_denoiser, noisy_pixels, pillow_file, png_file, strings

from bsdenoise.noise import GaussianNoise

CHANNELS = {"grey": 1, "rgb": 3, "range": 3}


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module", params=CHANNELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def denoiser(name):
    low, high = (5, 50) if name == "range" else (25, 25)
    return make_denoiser(CHANNELS[name], GaussianNoise(low / 255, high / 255))


@pytest.fixture(scope="module")
def folder(denoiser, tmp_path_factory):
    return export_some(denoiser, tmp_path_factory.mktemp("exported") / "1", "encoded", "encoded_with_sigma")


def jpeg_file(array):
    return pillow_file(array, "JPEG", quality=80)


FILES = {
    "png8": lambda channels: [png_file(noisy_pixels(channels, (19, 14), np.uint8))],
    "png16": lambda channels: [png_file(noisy_pixels(channels, (19, 14), np.uint16))],
    "jpeg": lambda channels: [jpeg_file(noisy_pixels(channels, (33, 21), np.uint8))],
    "one_pixel": lambda channels: [png_file(noisy_pixels(channels, (1, 1), np.uint8))],
    "mixed": lambda channels: [
        png_file(noisy_pixels(channels, (8, 21), np.uint8, 1)),
        jpeg_file(noisy_pixels(channels, (9, 11), np.uint8, 2)),
        png_file(noisy_pixels(channels, (7, 5), np.uint16, 3)),
    ],
}


@pytest.mark.parametrize("kind", FILES)
def test_encoded_signatures_equal_the_keras_model(kind, server, folder, denoiser):
    files = FILES[kind](denoiser.channels)
    sigma = np.linspace(0.05, 0.2, len(files)).astype("float32")
    own = server.call(folder, "encoded", route="tf2", image_bytes=strings(*files))
    given = server.call(folder, "encoded_with_sigma", image_bytes=strings(*files), sigma=sigma)
    for index, data in enumerate(files):
        noisy = decoded(data)
        scale = np.iinfo(noisy.dtype).max
        for answer, level in ((own, None), (given, sigma[index])):
            result = decoded(answer["denoised_bytes"][index])
            assert (result.dtype, result.shape) == (noisy.dtype, noisy.shape)
            exact = np.clip(scale * denoiser.denoise(noisy, level).astype("float64"), 0, scale)
            # Rounded to nearest, up to 1e-5 / 5 of full scale between the two ways of computing.
            assert np.abs(result - exact).max() < 0.5 + 2e-6 * scale
            assert noisy.size <= 3 or np.abs(exact - noisy).max() > 0.02 * scale


# Kinds of files that are the same picture


def with_trailing_bytes(data):
    return data + b"\xff\xd8\xff\x00 and more"


SAME_PNG = {
    "interlaced": interlaced_png,
    "many pieces": lambda pixels: png_by_hand(pixels, idats=40),
    "text": lambda pixels: png_by_hand(pixels, before=chunk(b"tEXt", b"a\0b"), after=chunk(b"tIME", bytes(7))),
    "damaged text": lambda pixels: png_by_hand(pixels, before=chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
    "suggested palette": lambda pixels: png_by_hand(pixels, before=chunk(b"PLTE", bytes(6))),
    "bytes behind it": lambda pixels: with_trailing_bytes(png_by_hand(pixels)),
}
SAME_JPEG = {
    "progressive": {"progressive": True},
    "own tables": {"optimize": True},
    "restart markers": {"restart_marker_blocks": 1},
    "profile and comment": {"icc_profile": os.urandom(200_000), "comment": b"\xff\xda\xff\xd9"},
}


@pytest.mark.parametrize("name", ["rgb"], indirect=True)
@pytest.mark.parametrize("kind", SAME_PNG)
def test_the_same_pixels_in_another_png_file(kind, server, folder):
    pixels = noisy_pixels(3, (19, 13), np.uint8)
    plain, other = png_file(pixels), SAME_PNG[kind](pixels)
    assert other != plain
    if kind != "damaged text":  # more than the other codec takes
        np.testing.assert_array_equal(decoded(other), pixels)
    one, two = server.call(folder, "encoded", image_bytes=strings(plain, other))["denoised_bytes"]
    assert one == two


@pytest.mark.parametrize("name", ["rgb", "grey"], indirect=True)
@pytest.mark.parametrize("kind", SAME_JPEG)
def test_the_same_pixels_in_another_jpeg_file(kind, server, folder, denoiser):
    pixels = noisy_pixels(denoiser.channels, (35, 21), np.uint8)
    files = [jpeg_file(pixels), pillow_file(pixels, "JPEG", quality=80, **SAME_JPEG[kind])]
    assert files[0] != files[1]
    np.testing.assert_array_equal(decoded(files[0]), decoded(files[1]))
    answers = server.call(folder, "encoded", image_bytes=strings(*files, with_trailing_bytes(files[1])))
    assert len(set(answers["denoised_bytes"])) == 1


@pytest.mark.parametrize("name", ["rgb"], indirect=True)
def test_fill_bytes_before_a_marker(server, folder):
    """Any number of them may stand there (ITU-T T.81, section B.1.1.2)."""
    plain = jpeg_file(noisy_pixels(3, (9, 8), np.uint8))
    filled = plain[:2] + b"\xff\xff\xff" + plain[2:]
    one, two = server.call(folder, "encoded", image_bytes=strings(plain, filled))["denoised_bytes"]
    assert one == two
