import gc
import json
import shutil
import threading
import weakref
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from bsdenoise.server.errors import ServingError
from bsdenoise.server.servable import Servable

GOLDEN = Path(__file__).parent / "golden"
MODEL = GOLDEN / "model" / "den" / "1"
IMAGE = np.zeros((1, 4, 5, 1), "float32")
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def servable():
    loaded = Servable("den", 1, MODEL)
    yield loaded
    loaded.close()


@pytest.fixture
def copy(tmp_path):
    """A copy of the model that may be damaged."""
    return Path(shutil.copytree(MODEL, tmp_path / "1"))


def error_of(servable, *args, **kwargs):
    with pytest.raises(ServingError) as caught:
        servable.predict(*args, **kwargs)
    return caught.value.code, caught.value.message


def test_it_computes_what_the_real_server_computed(servable):
    exchanges = [json.loads(line) for line in (GOLDEN / "exchanges.jsonl").read_text().splitlines()]
    computed = 0
    for exchange in exchanges:
        if exchange["path"] == "/v1/models/den:predict" and exchange["status"] == 200:
            request, answer = json.loads(exchange["request"]), json.loads(exchange["body"])
            if "signature_name" in request or "predictions" not in answer or isinstance(request["instances"][0], dict):
                continue
            image = np.array(request["instances"], "float32")
            outputs = servable.predict("serving_default", {"image": image})
            assert list(outputs) == ["denoised"]
            expected = np.array(answer["predictions"])
            assert outputs["denoised"].shape == expected.shape
            # What a rectifier makes of NaN, NaN or 0, depends on how TensorFlow happens to vectorise it.
            if np.isfinite(image).all():
                np.testing.assert_allclose(outputs["denoised"], expected, atol=1e-5)
                computed += 1
    assert computed >= 1


def test_its_description(servable):
    assert (servable.name, servable.version) == ("den", 1)
    assert {"serving_default", "uint8", "png", "half", "jit"} <= set(servable.signature_defs)
    name, definition = servable.signature("")
    assert name == "serving_default"
    assert definition.inputs["image"].dtype == tf.float32.as_datatype_enum


def test_strings_are_object_arrays_of_bytes(servable):
    file = tf.io.encode_png(np.zeros((4, 5, 1), "uint8")).numpy()
    (answer,) = servable.predict("png", {"image_bytes": np.array([file, file], object)}).values()
    assert answer.shape == (2,)
    assert answer.dtype == object
    assert tf.io.decode_png(answer[0]).shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("signature", "inputs", "outputs", "message"),
    [
        ("zzz", {"image": IMAGE}, (), 'Serving signature name: "zzz" not found in signature def'),
        (
            "",
            {},
            (),
            "input size does not match signature: 0!=1 len({}) != len({image}). Sent extra: {}. "
            "Missing but required: {image}.",
        ),
        (
            "",
            {"image": IMAGE, "b": IMAGE, "a": IMAGE},
            (),
            "input size does not match signature: 3!=1 len({a,b,image}) != len({image}). Sent extra: {a,b}. "
            "Missing but required: {}.",
        ),
        (
            "",
            {"picture": IMAGE},
            (),
            "input tensor alias not found in signature: picture. Inputs expected to be in the set {image}.",
        ),
        (
            "",
            {"image": IMAGE},
            ("nope",),
            "output tensor alias not found in signature: nope Outputs expected to be in the set {denoised}.",
        ),
        ("", {"image": IMAGE}, ("denoised", "denoised"), "duplicate output tensor alias: denoised"),
        ("", {"image": IMAGE.astype("float64")}, (), "Expects arg[0] to be float but double is provided"),
        ("", {"image": np.array([b"a"], object)}, (), "Expects arg[0] to be float but string is provided"),
        ("uint8", {"image": IMAGE}, (), "Expects arg[0] to be uint8 but float is provided"),
        (
            "",
            {"image": IMAGE[0]},
            (),
            "Shape of tensor _arg_serving_default_image_0_0 [4,5,1] is not compatible with expected shape [?,?,?,1].\n"
            "\t [[{{function_node __inference_f_99}}{{node EnsureShape}}]]",
        ),
    ],
    ids=["signature", "none", "more", "other", "output", "twice", "double", "string", "uint8", "rank"],
)
def test_what_it_refuses(servable, signature, inputs, outputs, message):
    assert error_of(servable, signature, inputs, outputs) == (INVALID, message)


def test_xla_is_switched_off_as_in_the_real_server(servable):
    code, message = error_of(servable, "jit", {"image": IMAGE})
    assert code is grpc.StatusCode.INTERNAL
    assert message == (
        "XLA compilation disabled\n"
        "\t [[{{function_node __inference_signature_wrapper_428}}{{node StatefulPartitionedCall}}]]"
    )


def test_a_deadline_ends_the_computation(servable):
    large = np.zeros((8, 1500, 1000, 1), "float32")
    code, message = error_of(servable, "", {"image": large}, timeout=0.001)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert message == "Timed out waiting for notification"
    assert servable.predict("", {"image": IMAGE}, timeout=60.0)["denoised"].shape == IMAGE.shape


def test_many_threads_at_once(servable):
    wrong = []

    def work(seed):
        image = np.random.default_rng(seed).uniform(size=(1, 4 + seed % 3, 5, 1)).astype("float32")
        alone = expected[seed]
        for _ in range(5):
            if not np.array_equal(servable.predict("", {"image": image})["denoised"], alone):
                wrong.append(seed)

    expected = {
        seed: servable.predict(
            "",
            {"image": np.random.default_rng(seed).uniform(size=(1, 4 + seed % 3, 5, 1)).astype("float32")},
        )["denoised"]
        for seed in range(8)
    }
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"\x00garbage"), "saved_model.pb"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "SavedModel file does not exist"),
        (lambda folder: shutil.rmtree(folder / "variables"), "variables"),
        (lambda folder: (folder / "variables" / "variables.index").write_bytes(b"garbage"), "(?s)."),
    ],
    ids=["garbage", "no graph", "no variables", "garbage variables"],
)
def test_a_damaged_version_is_an_error(copy, damage, match):
    damage(copy)
    with pytest.raises(ServingError, match=match):
        Servable("den", 2, copy)


def warm_up(folder, *records):
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def log(image, signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(image))
    return prediction_log_pb2.PredictionLog(predict_log={"request": request}).SerializeToString()


def test_warm_up_requests_are_computed_before_it_serves(copy, monkeypatch):
    warm_up(copy, log(IMAGE), log(IMAGE.astype("uint8"), "uint8"))
    called = []
    predict = Servable.predict
    monkeypatch.setattr(
        Servable, "predict", lambda self, name, *args, **kwargs: (called.append(name), predict(self, name, *args))[1]
    )
    Servable("den", 1, copy).close()
    assert called == ["", "uint8"]


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ([log(IMAGE), log(IMAGE[0])], "Shape of tensor"),
        ([log(IMAGE, "zzz")], 'Serving signature name: "zzz" not found'),
        ([b"\xff\xff\xff"], "Failed to parse warmup record"),
        ([log(IMAGE)] * 1001, r"Number of warmup records exceeds the maximum \(1000\)"),
    ],
    ids=["refused", "signature", "no request", "too many"],
)
def test_a_bad_warm_up_request_blocks_the_load(copy, records, match):
    warm_up(copy, *records)
    with pytest.raises(ServingError, match=match) as caught:
        Servable("den", 1, copy)
    assert caught.value.code is INVALID


def test_a_warm_up_file_that_is_none_is_passed_over(copy):
    (copy / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no record file at all, and long enough")
    Servable("den", 1, copy).close()


def test_ten_versions_one_after_the_other_leave_nothing_behind():
    alive = []
    for version in range(10):
        loaded = Servable("den", version, MODEL)
        loaded.predict("", {"image": IMAGE})
        alive += [weakref.ref(loaded), weakref.ref(loaded._session), weakref.ref(loaded._session.graph)]
        loaded.close()
        del loaded
    gc.collect()
    assert [reference for reference in alive if reference() is not None] == []
