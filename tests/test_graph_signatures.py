"""The exported graph's signatures, judged from a process that has no bsdenoise, against the Keras model."""

import json

import numpy as np
import pytest
import reference
import tensorflow as tf
from exported import ROUTES, Server, make_denoiser, noisy_batch, strings
from tensorflow.core.protobuf import saved_model_pb2

import bsdenoise
from bsdenoise import export
from bsdenoise.export import export_saved_model, signatures
from bsdenoise.noise import GaussianNoise

KNOWN = GaussianNoise(25 / 255, 25 / 255)
# Every number of channels with another likelihood, both factors, both covariances, both kinds of noise and of units.
MODELS = {
    "grey": (1, KNOWN, {}),
    "scaled": (2, KNOWN, {"factor": "precision", "offset": -700.0, "scale": 4000.0, "fractional": False}),
    "rgb": (3, GaussianNoise(5 / 255, 50 / 255), {}),
    "five": (5, KNOWN, {"method": "per_component", "factor": "precision"}),
}
SHAPES = {"1x1": (1, 1, 1), "row": (2, 1, 6), "odd": (1, 7, 5), "batch": (3, 13, 9), "on_grid": (2, 8, 4)}


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def denoiser(name):
    channels, noise, options = MODELS[name]
    num_outputs = reference.num_outputs(channels, options.get("method") == "per_component")
    return make_denoiser(channels, noise, depth=2, num_outputs=num_outputs, **options)


@pytest.fixture(scope="module")
def folder(denoiser, tmp_path_factory):
    return export_saved_model(denoiser, tmp_path_factory.mktemp("exported") / "1")


@pytest.fixture(scope="module")
def meta_graph(folder):
    """The graph as the file holds it."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    return graph


# What it computes


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_float_signatures_equal_the_keras_model(shape, name, server, folder, denoiser):
    image, sigma = noisy_batch(denoiser, shape)
    expected = denoiser.posterior(image, sigma)
    own = denoiser.denoise(image)
    tolerance = 1e-5 * denoiser.scale
    # A graph that gives back its input, or the mean, would be told apart.
    assert np.abs(expected.denoised - image).max() > 30 * tolerance
    assert np.abs(expected.denoised - expected.mean).max() > 100 * tolerance
    for route in ROUTES if name == "rgb" else ROUTES[-1:]:
        served = server.call(folder, "posterior", route=route, image=image, sigma=sigma)
        for key in ("denoised", "mean"):
            np.testing.assert_allclose(served[key], getattr(expected, key), rtol=1e-5, atol=tolerance, err_msg=key)
        # σ²(1 − G) cancels where G is near 1, and the root of what remains says nothing: the variance is compared.
        variances = [np.square(std / sigma[:, None, None, None]) for std in (served["std"], expected.std)]
        np.testing.assert_allclose(*variances, atol=1e-5)
        assert variances[1].max() > 0.005
        psnr = np.where(np.isnan(expected.estimated_psnr), -1.0, np.maximum(expected.estimated_psnr, 0.0))
        np.testing.assert_allclose(served["estimated_psnr"], psnr, atol=1e-3)
        served = server.call(folder, "with_sigma", route=route, image=image, sigma=sigma)
        np.testing.assert_allclose(served["denoised"], expected.denoised, rtol=1e-5, atol=tolerance)
        served = server.call(folder, "serving_default", route=route, image=image)
        np.testing.assert_allclose(served["denoised"], own, rtol=1e-5, atol=tolerance)


def test_the_mean_never_sees_its_own_pixel(server, folder, denoiser):
    height, width, channels = 7, 5, denoiser.channels
    rng = np.random.default_rng(1)
    scale = np.float32(denoiser.scale)
    base = scale * rng.uniform(size=(height, width, channels)).astype("float32")
    places = [(row, column) for row in range(height) for column in range(width)]
    image = np.repeat(base[None], len(places), axis=0)
    sigma = np.full(len(places), 0.1 * scale, "float32")
    before = server.call(folder, "posterior", image=image, sigma=sigma)["mean"]
    for index, (row, column) in enumerate(places):
        image[index, row, column] += 0.7 * scale
    after = server.call(folder, "posterior", image=image, sigma=sigma)["mean"]
    for index, (row, column) in enumerate(places):
        changed = (before[index] != after[index]).any(axis=-1)
        assert not changed[row, column], (row, column)
        changed[row, column] = True
        around = changed[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert around.all(), (row, column)


@pytest.mark.parametrize("name", ["rgb"], indirect=True)
def test_a_range_model_estimates_sigma_of_each_image(server, folder, denoiser):
    rng = np.random.default_rng(0)
    levels = np.array([10 / 255, 40 / 255], "float32")
    image = (0.5 + levels[:, None, None, None] * rng.standard_normal((2, 64, 64, 3))).astype("float32")
    served = server.call(folder, "serving_default", image=image)["denoised"]
    for sigma, is_near in ((levels, True), (levels[::-1].copy(), False)):
        given = server.call(folder, "with_sigma", image=image, sigma=sigma)["denoised"]
        distance = np.abs(served - given).mean(axis=(1, 2, 3)) / levels
        assert ((distance < 0.02) if is_near else (distance > 0.05)).all(), (sigma, distance)
    own = np.asarray(denoiser.own_sigma(image))
    np.testing.assert_allclose(server.call(folder, "own_sigma", image=image)["sigma"], own, rtol=1e-5)
    assert own[1] > 3 * own[0]
    given = server.call(folder, "with_sigma", image=image, sigma=own)["denoised"]
    np.testing.assert_allclose(served, given, atol=1e-5)


@pytest.mark.parametrize("name", ["grey", "rgb", "scaled"], indirect=True)
def test_extreme_values_that_are_allowed_give_numbers(server, folder, denoiser):
    low, high = denoiser.intensities
    rng = np.random.default_rng(0)
    image = rng.choice(np.array([low, high, denoiser.offset]), (2, 9, 8, denoiser.channels)).astype("float32")
    for sigma in ([1e-30, 1e-6], [denoiser.scale, 0.5]):
        served = server.call(folder, "posterior", image=image, sigma=np.array(sigma, "float32"))
        assert all(np.isfinite(value).all() for value in served.values())


@pytest.mark.parametrize("name", ["scaled", "five"], indirect=True)
def test_a_known_sigma_is_told_for_each_image(server, folder, denoiser):
    image, _ = noisy_batch(denoiser, (3, 5, 4))
    sigma = server.call(folder, "own_sigma", image=image)["sigma"]
    np.testing.assert_allclose(sigma, np.full(3, 25 / 255 * denoiser.scale), rtol=1e-6)


def test_the_graph_says_what_stands_beside_it(server, folder, denoiser):
    (text, again) = server.call(folder, "describe", format=strings(b"json", b"json"))["description"]
    assert text == again == (folder / "serving.json").read_bytes()
    description = json.loads(text)
    noise, scale = denoiser.noise, denoiser.scale
    assert description["channels"] == denoiser.channels
    low, high = noise.low * scale, noise.high * scale
    assert description["noise"] == {
        "kind": "gaussian",
        "parameters": [{"name": "sigma", "unit": "intensity", "low": low, "high": high}],
        "sigma_low": low,
        "sigma_high": high,
    }
    assert description["method"] == denoiser.method.name
    assert description["factor"] == denoiser.factor
    pixels = description["pixels"]
    assert (pixels["low"], pixels["high"]) == denoiser.intensities
    assert (pixels["offset"], pixels["scale"], pixels["fractional"]) == (
        denoiser.offset, scale, denoiser.fractional,
    )  # fmt: skip
    assert pixels["units"] == denoiser.units
    assert description["limits"] == {
        "max_pixels": export.DEFAULT_MAX_PIXELS, "grid": 4, "tile": 1024, "overlap": 40, "untiled_pixels": 2**20,
    }  # fmt: skip
    width, channels = 4, denoiser.channels  # of the widest maps there are eight times as many
    expected = 3.5 * 4 * 8 * width * 1024**2 / 2**20, 40 * channels * export.DEFAULT_MAX_PIXELS / 2**20
    assert description["memory"] == {
        "request_mib": round(sum(expected)), "tile_mib": round(expected[0]), "bytes_per_pixel": 40 * channels,
    }  # fmt: skip
    assert description["network"] == {
        "parameters": denoiser.network.count_params(), "depth": 2, "blind_spot": [1, 1], "tta": 1,
    }  # fmt: skip
    assert description["package"] == f"bsdenoise {bsdenoise.__version__}"
    assert (description["format"], description["name"], description["training"]) == (1, "denoiser", None)


# What the graph is made of


def tensor_infos(infos):
    dtypes = {tf.float32.as_datatype_enum: "float32", tf.string.as_datatype_enum: "string"}
    return {
        name: (dtypes[info.dtype], tuple(dim.size for dim in info.tensor_shape.dim)) for name, info in infos.items()
    }


def test_names_types_and_shapes_of_signatures(denoiser, meta_graph):
    image, vector = ("float32", (-1, -1, -1, denoiser.channels)), ("float32", (-1,))
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
        "own_sigma": ({"image": image}, {"sigma": vector}),
        "describe": ({"format": files}, {"description": files}),
    }
    if not denoiser.noise.is_known:
        theta = "float32", (-1, 3)
        expected |= {
            "with_noise": ({"image": image, "noise": theta}, {"denoised": image}),
            "encoded_with_noise": ({"image_bytes": files, "noise": theta}, {"denoised_bytes": files}),
            "own_noise": ({"image": image}, {"noise": theta}),
        }
    # No file format for them, or other units than those of files.
    if denoiser.channels not in (1, 3) or not denoiser.fractional:
        expected = {name: value for name, value in expected.items() if not name.startswith("encoded")}
    found = {
        key: (tensor_infos(signature.inputs), tensor_infos(signature.outputs))
        for key, signature in meta_graph.signature_def.items()
        if key != "__saved_model_init_op"
    }
    assert found == expected
    assert set(signatures.names_of(denoiser)) == set(expected)


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


def test_every_input_meets_ensure_shape_first(denoiser, meta_graph):
    for key in signatures.names_of(denoiser):
        for info in meta_graph.signature_def[key].inputs.values():
            assert first_ops(meta_graph.graph_def, info.name.split(":")[0]) == ["EnsureShape"], (key, info.name)


def test_the_graph_asks_for_no_xla_and_computes_in_float32(meta_graph):
    functions = meta_graph.graph_def.library.function
    assert not any(function.attr["_XlaMustCompile"].b for function in functions)
    convolutions = [node for function in functions for node in function.node_def if node.op == "Conv2D"]
    assert {node.attr["T"].type for node in convolutions} == {tf.float32.as_datatype_enum}


def test_the_network_stands_in_the_file_once(meta_graph, denoiser):
    images = tf.TensorSpec((None, None, None, denoiser.network.input_shape[-1]))
    alone = tf.function(denoiser.network).get_concrete_function(images).graph.as_graph_def()
    assert num_convolutions(meta_graph.graph_def) == num_convolutions(alone) > 0


def num_convolutions(graph_def):
    nodes = [node for function in graph_def.library.function for node in function.node_def]
    return sum(node.op == "Conv2D" for node in [*graph_def.node, *nodes])


def test_tiles_come_one_after_the_other(meta_graph):
    """So that the memory is that of one."""
    functions = meta_graph.graph_def.library.function
    loops = [node for function in functions for node in function.node_def if node.op in ("While", "StatelessWhile")]
    assert loops and {node.attr["parallel_iterations"].i for node in loops} == {1}
