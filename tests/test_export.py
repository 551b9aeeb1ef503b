"""The exported graph, judged from a process that has no bsdenoise, against the Keras model and independent codecs."""

import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from bsdenoise import cli, export
from bsdenoise.denoiser import Denoiser
from bsdenoise.export import export_saved_model
from bsdenoise.network import blind_spot_network
from bsdenoise.noise import GaussianNoise

CHANNELS = {"grey": 1, "rgb": 3, "range": 3, "scaled": 2}
MODELS = tuple(CHANNELS)
ROUTES = ("tf2", "session")
IMAGE_SIGNATURES = ("serving_default", "with_sigma", "posterior")
SHAPES = {"1x1": (1, 1, 1), "row": (2, 1, 6), "odd": (1, 7, 5), "batch": (3, 13, 9), "on_grid": (2, 8, 4)}


class Server:
    """A process that runs SavedModels and cannot import bsdenoise."""

    def __init__(self):
        script = Path(__file__).with_name("saved_model_process.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, folder, signature, *, route="session", **inputs):
        """Gives the outputs by name; a graph's error comes as ValueError "TypeOfError: message"."""
        pickle.dump((route, str(folder), signature, inputs), self.process.stdin)
        self.process.stdin.flush()
        try:
            status, *answer = pickle.load(self.process.stdout)
        except EOFError:
            pytest.fail(f"The serving process died with code {self.process.wait()}.")
        if status == "error":
            raise ValueError(": ".join(answer))
        return answer[0]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def make_denoiser(channels, noise, dtype="float32", **kwargs):
    """A small denoiser with random weights, biases included."""
    keras.utils.set_random_seed(channels)
    network = blind_spot_network(channels=channels, width=4, depth=2, dtype=dtype)
    rng = np.random.default_rng(channels)
    network.set_weights([value + 0.1 * rng.standard_normal(value.shape) for value in network.get_weights()])
    return Denoiser(network, noise, **kwargs)


@pytest.fixture(scope="module")
def denoisers():
    known = GaussianNoise(25 / 255, 25 / 255)
    return {
        "grey": make_denoiser(1, known),
        "rgb": make_denoiser(3, known, factor="precision"),
        "range": make_denoiser(3, GaussianNoise(5 / 255, 50 / 255)),
        "scaled": make_denoiser(2, known, offset=100.0, scale=4000.0),
    }


@pytest.fixture(scope="module")
def folders(denoisers, tmp_path_factory):
    parent = tmp_path_factory.mktemp("exported")
    return {name: export_saved_model(denoiser, parent / name / "1") for name, denoiser in denoisers.items()}


@pytest.fixture(scope="module")
def meta_graphs(folders):
    """The graphs as the files hold them."""
    graphs = {}
    for name, folder in folders.items():
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        (graphs[name],) = saved.meta_graphs
    return graphs


def noisy_batch(denoiser, shape):
    """Noisy images in the model's units, and a different sigma for each."""
    rng = np.random.default_rng(sum(shape))
    sigma = np.linspace(0.04, 0.15, shape[0]).astype("float32")
    clean = rng.uniform(0.2, 0.8, (shape[0], 1, 1, denoiser.channels))
    unit = clean + sigma[:, None, None, None] * rng.standard_normal((*shape, denoiser.channels))
    return (unit * denoiser.scale + denoiser.offset).astype("float32"), sigma * np.float32(denoiser.scale)


def strings(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


# What it computes


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_float_signatures_equal_the_keras_model(name, shape, server, folders, denoisers):
    denoiser, folder = denoisers[name], folders[name]
    image, sigma = noisy_batch(denoiser, shape)
    expected = denoiser.posterior(image, sigma)
    own = denoiser.denoise(image)
    tolerance = 1e-5 * denoiser.scale
    # A graph that gives back its input, or the mean, would be told apart.
    assert np.abs(expected.denoised - image).max() > 100 * tolerance
    assert np.abs(expected.denoised - expected.mean).max() > 100 * tolerance
    for route in ROUTES:
        served = server.call(folder, "posterior", route=route, image=image, sigma=sigma)
        for key in ("denoised", "mean"):
            np.testing.assert_allclose(served[key], getattr(expected, key), rtol=1e-5, atol=tolerance, err_msg=key)
        # σ²(1 − G) cancels where G is near 1, and the root of what remains says nothing: the variance is compared.
        variances = [np.square(std / sigma[:, None, None, None]) for std in (served["std"], expected.std)]
        np.testing.assert_allclose(*variances, atol=1e-5)
        assert variances[1].max() > 0.01
        np.testing.assert_allclose(served["estimated_psnr"], expected.estimated_psnr, atol=1e-3)
        served = server.call(folder, "with_sigma", route=route, image=image, sigma=sigma)
        np.testing.assert_allclose(served["denoised"], expected.denoised, rtol=1e-5, atol=tolerance)
        served = server.call(folder, "serving_default", route=route, image=image)
        np.testing.assert_allclose(served["denoised"], own, rtol=1e-5, atol=tolerance)


def test_a_range_model_estimates_sigma_of_each_image(server, folders):
    rng = np.random.default_rng(0)
    levels = np.array([10 / 255, 40 / 255], "float32")
    image = (0.5 + levels[:, None, None, None] * rng.standard_normal((2, 64, 64, 3))).astype("float32")
    served = server.call(folders["range"], "serving_default", image=image)["denoised"]
    for sigma, is_near in ((levels, True), (levels[::-1].copy(), False)):
        given = server.call(folders["range"], "with_sigma", image=image, sigma=sigma)["denoised"]
        distance = np.abs(served - given).mean(axis=(1, 2, 3)) / levels
        assert ((distance < 0.02) if is_near else (distance > 0.05)).all(), (sigma, distance)


@pytest.mark.parametrize("name", ["grey", "rgb"])
def test_the_mean_never_sees_its_own_pixel(name, server, folders):
    height, width, channels = 7, 5, CHANNELS[name]
    rng = np.random.default_rng(1)
    base = rng.uniform(size=(height, width, channels)).astype("float32")
    places = [(row, column) for row in range(height) for column in range(width)]
    image = np.repeat(base[None], len(places), axis=0)
    sigma = np.full(len(places), 0.1, "float32")
    before = server.call(folders[name], "posterior", image=image, sigma=sigma)["mean"]
    for index, (row, column) in enumerate(places):
        image[index, row, column] += 0.7
    after = server.call(folders[name], "posterior", image=image, sigma=sigma)["mean"]
    for index, (row, column) in enumerate(places):
        changed = (before[index] != after[index]).any(axis=-1)
        assert not changed[row, column], (row, column)
        changed[row, column] = True
        around = changed[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert around.all(), (row, column)


def png_file(array):
    return bytes(imagecodecs.png_encode(array))


def jpeg_file(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=80)
    return file.getvalue()


def decoded(data):
    """Decodes with other codecs than TensorFlow's."""
    if data.startswith(b"\x89PNG"):
        return imagecodecs.png_decode(data)
    return np.asarray(Image.open(io.BytesIO(data)))


def noisy_pixels(channels, size, dtype, seed=0):
    """Pixels that use the whole range of their type, both ends included."""
    rng = np.random.default_rng(seed)
    unit = np.clip(rng.uniform(0.1, 0.9, channels) + 0.4 * rng.standard_normal((*size, channels)), 0, 1)
    pixels = np.rint(unit * np.iinfo(dtype).max).astype(dtype)
    return pixels[..., 0] if channels == 1 else pixels


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
@pytest.mark.parametrize("name", ["grey", "rgb", "range"])
def test_encoded_signatures_equal_the_keras_model(name, kind, server, folders, denoisers):
    denoiser, files = denoisers[name], FILES[kind](CHANNELS[name])
    sigma = np.linspace(0.05, 0.2, len(files)).astype("float32")
    own = server.call(folders[name], "encoded", route="tf2", image_bytes=strings(*files))
    given = server.call(folders[name], "encoded_with_sigma", image_bytes=strings(*files), sigma=sigma)
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


# What it refuses: called past Python's own checks


@pytest.mark.parametrize("signature", IMAGE_SIGNATURES)
@pytest.mark.parametrize(
    "shape", [(), (3,), (5, 7), (5, 7, 3), (1, 1, 5, 7, 3), (1, 5, 7, 1), (1, 5, 7, 4), (1, 5, 7, 0)], ids=str
)
def test_wrong_rank_or_channels_are_refused(shape, signature, server, folders):
    sigma = {} if signature == "serving_default" else {"sigma": np.full(1, 0.1, "float32")}
    with pytest.raises(ValueError, match=r"^InvalidArgumentError: .*not compatible with expected shape \[\?,\?,\?,3\]"):
        server.call(folders["rgb"], signature, image=np.zeros(shape, "float32"), **sigma)


@pytest.mark.parametrize("signature", IMAGE_SIGNATURES)
@pytest.mark.parametrize("shape", [(0, 5, 7, 3), (2, 0, 7, 3), (2, 5, 0, 3)], ids=str)
def test_empty_images_are_refused(shape, signature, server, folders):
    sigma = {} if signature == "serving_default" else {"sigma": np.full(shape[0], 0.1, "float32")}
    with pytest.raises(ValueError, match="^InvalidArgumentError: .*image is empty"):
        server.call(folders["rgb"], signature, image=np.zeros(shape, "float32"), **sigma)


@pytest.mark.parametrize("signature", IMAGE_SIGNATURES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(value, signature, server, folders):
    image = np.full((2, 5, 7, 3), 0.5, "float32")
    image[1, 4, 6, 2] = value
    sigma = {} if signature == "serving_default" else {"sigma": np.full(2, 0.1, "float32")}
    with pytest.raises(ValueError, match="^InvalidArgumentError: .*image holds NaN or infinite values"):
        server.call(folders["rgb"], signature, image=image, **sigma)


@pytest.mark.parametrize("signature", ["with_sigma", "posterior", "encoded_with_sigma"])
@pytest.mark.parametrize(
    ("sigma", "sentence"),
    [
        (0.1, r"not compatible with expected shape \[\?\]"),
        ([[0.1], [0.1]], r"not compatible with expected shape \[\?\]"),
        ([0.1], "sigma must hold one number per image"),
        ([0.1, 0.1, 0.1], "sigma must hold one number per image"),
        ([0.1, np.nan], "sigma must be positive and finite"),
        ([np.inf, 0.1], "sigma must be positive and finite"),
        ([0.1, 0.0], "sigma must be positive and finite"),
        ([-0.1, 0.1], "sigma must be positive and finite"),
        ([0.1, 25.0], "sigma is a fraction of full scale: 25 grey levels is 0.098"),
    ],
    ids=str,
)
def test_wrong_sigma_is_refused(sigma, sentence, signature, server, folders):
    if signature == "encoded_with_sigma":
        inputs = {"image_bytes": strings(*2 * FILES["png8"](3))}
    else:
        inputs = {"image": np.full((2, 5, 7, 3), 0.5, "float32")}
    with pytest.raises(ValueError, match=f"^InvalidArgumentError: .*{sentence}"):
        server.call(folders["rgb"], signature, sigma=np.array(sigma, "float32"), **inputs)


def test_sigma_up_to_full_scale_is_accepted(server, folders):
    image = np.full((1, 5, 7, 3), 0.5, "float32")
    assert server.call(folders["rgb"], "with_sigma", image=image, sigma=np.ones(1, "float32"))


def broken_files():
    rgb, grey = noisy_pixels(3, (9, 8), np.uint8), noisy_pixels(1, (9, 8), np.uint8)
    png, jpeg = png_file(rgb), jpeg_file(rgb)
    one_bit, cmyk = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).convert("1").save(one_bit, "PNG")
    Image.fromarray(rgb).convert("CMYK").save(cmyk, "JPEG")
    neither, other_kind = "must hold PNG or JPEG files", "takes RGB images without alpha channel"
    return {
        "empty": (b"", neither),
        "signature_only": (png[:8], neither),
        "header_cut": (png[:32], neither),
        "text": (b"hello", neither),
        "png_cut": (png[:-40], "Invalid PNG"),
        "jpeg_cut": (jpeg[:200], "Invalid JPEG"),
        "gigapixels": (png[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[24:], "Invalid PNG"),
        "grey_png": (png_file(grey), other_kind),
        "grey_jpeg": (jpeg_file(grey), other_kind),
        "alpha": (png_file(np.dstack([rgb, grey])), other_kind),
        "cmyk": (cmyk.getvalue(), other_kind),
        "one_bit": (one_bit.getvalue(), "must have 8 or 16 bits"),
    }


@pytest.mark.parametrize("signature", ["encoded", "encoded_with_sigma"])
@pytest.mark.parametrize(("data", "sentence"), broken_files().values(), ids=broken_files())
def test_files_that_cannot_be_denoised_are_refused(data, sentence, signature, server, folders):
    sigma = {} if signature == "encoded" else {"sigma": np.full(1, 0.1, "float32")}
    with pytest.raises(ValueError, match=f"^InvalidArgumentError: .*{sentence}"):
        server.call(folders["rgb"], signature, image_bytes=strings(data), **sigma)


def test_a_grey_model_refuses_colour_files(server, folders):
    for data in (FILES["png8"](3)[0], FILES["jpeg"](3)[0]):
        with pytest.raises(ValueError, match="takes grey images"):
            server.call(folders["grey"], "encoded", image_bytes=strings(data))


@pytest.mark.parametrize("shape", [(), (1, 1), (0,)], ids=str)
def test_files_of_wrong_rank_or_number_are_refused(shape, server, folders):
    image_bytes = np.full(shape, FILES["png8"](3)[0], object)
    with pytest.raises(ValueError, match="^InvalidArgumentError: .*(expected shape|image_bytes is empty)"):
        server.call(folders["rgb"], "encoded", image_bytes=image_bytes)


# What the graph is made of


def tensor_infos(infos):
    dtypes = {tf.float32.as_datatype_enum: "float32", tf.string.as_datatype_enum: "string"}
    return {
        name: (dtypes[info.dtype], tuple(dim.size for dim in info.tensor_shape.dim)) for name, info in infos.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_names_types_and_shapes_of_signatures(name, meta_graphs):
    image, vector = ("float32", (-1, -1, -1, CHANNELS[name])), ("float32", (-1,))
    files = ("string", (-1,))
    expected = {
        "serving_default": ({"image": image}, {"denoised": image}),
        "with_sigma": ({"image": image, "sigma": vector}, {"denoised": image}),
        "encoded": ({"image_bytes": files}, {"denoised_bytes": files}),
        "encoded_with_sigma": ({"image_bytes": files, "sigma": vector}, {"denoised_bytes": files}),
        "posterior": (
            {"image": image, "sigma": vector},
            {"denoised": image, "mean": image, "std": image, "estimated_psnr": vector},
        ),
    }
    if name == "scaled":  # two channels: no file format for them
        del expected["encoded"], expected["encoded_with_sigma"]
    found = {
        key: (tensor_infos(signature.inputs), tensor_infos(signature.outputs))
        for key, signature in meta_graphs[name].signature_def.items()
        if key != "__saved_model_init_op"
    }
    assert found == expected
    assert set(export.signature_names(CHANNELS[name])) == set(expected)


def first_ops(graph, placeholder):
    """Names the ops that read a placeholder, looking into the functions that are called with it."""
    functions = {function.signature.name: function for function in graph.library.function}

    def readers(nodes, name):
        for node in nodes:
            positions = [index for index, source in enumerate(node.input) if source.split(":")[0] == name]
            for position in positions:
                if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
                    function = functions[node.attr["f"].func.name]
                    yield from readers(function.node_def, function.signature.input_arg[position].name)
                else:
                    yield node.op

    return list(readers(graph.node, placeholder))


@pytest.mark.parametrize("name", MODELS)
def test_every_input_meets_ensure_shape_first(name, meta_graphs):
    meta_graph = meta_graphs[name]
    for key in export.signature_names(CHANNELS[name]):
        for info in meta_graph.signature_def[key].inputs.values():
            assert first_ops(meta_graph.graph_def, info.name.split(":")[0]) == ["EnsureShape"], (key, info.name)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_asks_for_no_xla_and_computes_in_float32(name, meta_graphs):
    functions = meta_graphs[name].graph_def.library.function
    assert not any(function.attr["_XlaMustCompile"].b for function in functions)
    convolutions = [node for function in functions for node in function.node_def if node.op == "Conv2D"]
    assert {node.attr["T"].type for node in convolutions} == {tf.float32.as_datatype_enum}


def test_the_network_stands_in_the_file_once(meta_graphs, denoisers):
    nodes = [node for function in meta_graphs["rgb"].graph_def.library.function for node in function.node_def]
    body = denoisers["rgb"].network.get_layer("unet_body")
    in_body = sum(type(layer).__name__ == "ShiftConv2D" for layer in body.layers)
    in_head = sum(type(layer) is keras.layers.Conv2D for layer in denoisers["rgb"].network.layers)
    assert sum(node.op == "Conv2D" for node in nodes) == 2 * in_body + in_head  # upright and sideways


# How it is written


@pytest.fixture(scope="module")
def denoiser(denoisers):
    return denoisers["scaled"]  # the one with fewest signatures


def test_a_failure_while_writing_leaves_nothing(denoiser, tmp_path, monkeypatch):
    target, save, seen = tmp_path / "versions" / "1", tf.saved_model.save, []

    def fail_at_the_end(trackable, folder, **kwargs):
        save(trackable, folder, **kwargs)
        seen.extend(path.name for path in target.parent.iterdir())
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail_at_the_end)
    with pytest.raises(OSError, match="No space left"):
        export_saved_model(denoiser, target)
    assert len(seen) == 1 and not seen[0].isdigit()  # written elsewhere than where a server looks
    assert list(target.parent.iterdir()) == []


def test_what_exists_is_not_touched(denoiser, tmp_path):
    target = tmp_path / "1"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="1: exists already"):
        export_saved_model(denoiser, target)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="notes.txt: exists already"):
        export_saved_model(denoiser, target / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_version_that_appears_meanwhile_is_not_touched(denoiser, tmp_path, monkeypatch):
    target, save = tmp_path / "1", tf.saved_model.save

    def save_beside_another(trackable, folder, **kwargs):
        save(trackable, folder, **kwargs)
        target.mkdir()
        (target / "saved_model.pb").write_bytes(b"other")

    monkeypatch.setattr(tf.saved_model, "save", save_beside_another)
    with pytest.raises(ValueError, match="exists already"):
        export_saved_model(denoiser, target)
    assert (target / "saved_model.pb").read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_an_empty_folder_is_taken_and_readable_by_others(denoiser, tmp_path):
    target = tmp_path / "1"
    target.mkdir()
    assert export_saved_model(denoiser, str(target)) == target
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    reference = tmp_path / "plain"
    reference.mkdir()
    assert target.stat().st_mode == reference.stat().st_mode  # a server runs as another user


def test_a_network_in_bfloat16_is_refused(tmp_path):
    denoiser = make_denoiser(1, GaussianNoise(0.1, 0.1), dtype="mixed_bfloat16")
    with pytest.raises(ValueError, match="computes in float32.*mixed_bfloat16"):
        export_saved_model(denoiser, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_the_global_dtype_policy_changes_nothing(denoiser, server, tmp_path):
    image, sigma = noisy_batch(denoiser, (2, 9, 7))
    expected = denoiser.posterior(image, sigma)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        copy = Denoiser(denoiser.network, denoiser.noise, offset=denoiser.offset, scale=denoiser.scale)
        folder = export_saved_model(copy, tmp_path / "1")
    finally:
        keras.config.set_dtype_policy(before)
    served = server.call(folder, "posterior", image=image, sigma=sigma)
    for key in ("denoised", "mean"):
        np.testing.assert_allclose(served[key], getattr(expected, key), rtol=1e-5, atol=1e-5 * denoiser.scale)


def test_another_backend_is_refused(denoiser, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow.*backend=jax"):
        export_saved_model(denoiser, tmp_path / "1")


def test_the_next_version_is_one_more_than_the_highest(tmp_path):
    assert export.next_version(tmp_path / "missing") == 1
    assert export.next_version(tmp_path) == 1
    for name in ("2", "10", "notes", ".11.tmp", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "12").write_text("a file, no version")
    assert export.next_version(tmp_path) == 11


# The command


@pytest.fixture(scope="module")
def run_folder(denoisers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    denoisers["scaled"].save(folder / "denoiser.keras")
    return folder


def test_the_command_writes_numbered_versions(run_folder, denoisers, server, tmp_path, capsys):
    out = tmp_path / "models" / "denoiser"
    (out / "4").mkdir(parents=True)
    assert cli.main(["export", str(run_folder), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{out / '5'}: 2 channel(s)") and "0.098" in lines[0]
    assert lines[1:] == ["signatures: serving_default, with_sigma, posterior"]
    assert cli.main(["export", str(run_folder / "denoiser.keras"), "--out", str(out), "--version", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["3", "4", "5"]
    image, _ = noisy_batch(denoisers["scaled"], (2, 9, 7))
    for version in ("3", "5"):
        served = server.call(out / version, "serving_default", image=image)["denoised"]
        np.testing.assert_allclose(served, denoisers["scaled"].denoise(image), rtol=1e-5, atol=4e-2)


@pytest.mark.parametrize(
    ("out", "arguments", "sentence"),
    [
        ("new", ["--version", "0"], "--version must be at least 1"),
        ("file", [], "is a file"),
        ("version", [], "is itself an exported version"),
        ("taken", ["--version", "1"], "exists already"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(out, arguments, sentence, run_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("version", "taken/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_text("")
    assert cli.main(["export", str(run_folder), "--out", str(tmp_path / out), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line and line.startswith("bsdenoise: error: ")
    assert not (tmp_path / "new").exists()


def test_the_command_names_a_model_that_is_missing(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "no.keras"), "--out", str(tmp_path / "out")]) == 2
    assert "no.keras: no such model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
