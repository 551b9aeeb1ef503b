import json
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import Limits
from bsdenoise.server.run import LocalServer

GOLDEN = Path(__file__).parent / "golden"
IMAGE = np.zeros((1, 4, 5, 1), "float32")
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
MAX_MESSAGE = 9 * 2**20
PATIENCE = 60.0


@pytest.fixture(scope="module")
def server():
    limits = Limits(max_message_bytes=MAX_MESSAGE, max_pixels=1_500_000)
    with LocalServer({"den": GOLDEN / "model" / "den"}, limits=limits) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc_address, options) as opened:
        yield opened


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def spec(request, name="den", version=None, label=None, signature=""):
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    return request


def predict_request(image=IMAGE, key="image", **kwargs):
    request = spec(predict_pb2.PredictRequest(), **kwargs)
    if image is not None:
        request.inputs[key].CopyFrom(tf.make_tensor_proto(image))
    return request


def error_of(call, request, **kwargs):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=kwargs.pop("timeout", PATIENCE), **kwargs)
    return caught.value.code(), caught.value.details()


def test_it_computes_what_the_real_server_computed(prediction):
    exchanges = [json.loads(line) for line in (GOLDEN / "exchanges.jsonl").read_text().splitlines()]
    exchange = next(item for item in exchanges if item["path"].endswith("den:predict") and item["status"] == 200)
    image = np.array(json.loads(exchange["request"])["instances"], "float32")
    answer = prediction.Predict(predict_request(image), timeout=PATIENCE)
    expected = json.loads(exchange["body"])["predictions"]
    np.testing.assert_allclose(tf.make_ndarray(answer.outputs["denoised"]), expected, atol=1e-5)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("den", 1)
    assert answer.model_spec.signature_name == "serving_default"


def test_strings_in_and_out(prediction):
    file = tf.io.encode_png(np.zeros((4, 5, 1), "uint8")).numpy()
    request = predict_request(np.array([file], object), "image_bytes", signature="png", version=1)
    (output,) = prediction.Predict(request, timeout=PATIENCE).outputs.values()
    assert tf.io.decode_png(tf.make_ndarray(output)[0]).shape == (4, 5, 1)


def test_types_that_json_has_not(prediction):
    (output,) = prediction.Predict(predict_request(signature="half"), timeout=PATIENCE).outputs.values()
    assert output.dtype == tf.float16.as_datatype_enum
    assert tf.make_ndarray(output).shape == IMAGE.shape


def test_outputs_can_be_chosen(prediction):
    request = predict_request()
    request.output_filter.append("denoised")
    assert list(prediction.Predict(request, timeout=PATIENCE).outputs) == ["denoised"]
    request.output_filter.append("std")
    assert error_of(prediction.Predict, request) == (
        INVALID,
        "output tensor alias not found in signature: std Outputs expected to be in the set {denoised}.",
    )


def test_an_answer_of_more_than_four_mebibytes(prediction):
    image = np.ones((1, 1100, 1000, 1), "float32")
    answer = prediction.Predict(predict_request(image), timeout=PATIENCE)
    assert answer.ByteSize() > 4 * 2**20
    assert tf.make_ndarray(answer.outputs["denoised"]).shape == image.shape


def content(size):
    request = predict_request()
    request.inputs["image"].tensor_content = b"\0" * size
    return request


def claims_gigabytes():
    request = predict_request(None)
    request.inputs["image"].dtype = tf.float32.as_datatype_enum
    request.inputs["image"].float_val.append(1.0)
    for size in (1, 2**20, 2**20, 1):
        request.inputs["image"].tensor_shape.dim.add(size=size)
    return request


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda: predict_request(name="nope"), NOT_FOUND, "Servable not found for request: Latest(nope)"),
        (lambda: predict_request(version=9), NOT_FOUND, "Servable not found for request: Specific(den, 9)"),
        (lambda: predict_request(label="zzz"), INVALID, "Unrecognized servable version label: zzz"),
        (
            lambda: predict_request(signature="zzz"),
            INVALID,
            'Serving signature name: "zzz" not found in signature def',
        ),
        (lambda: predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
        (lambda: predict_request(name=""), INVALID, "ModelSpec has no name specified."),
        (
            lambda: predict_request(None),
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({image}). Sent extra: {}. "
            "Missing but required: {image}.",
        ),
        (
            lambda: predict_request(key="img"),
            INVALID,
            "input tensor alias not found in signature: img. Inputs expected to be in the set {image}.",
        ),
        (
            lambda: predict_request(IMAGE.astype("float64")),
            INVALID,
            "Expects arg[0] to be float but double is provided",
        ),
        (lambda: content(76), INVALID, "tensor parsing error: image"),
        (claims_gigabytes, INVALID, "tensor parsing error: image"),
        (
            lambda: predict_request(np.zeros((2, 1000, 1000, 1), "float32")),
            INVALID,
            "image holds too many pixels: this server takes at most 1500000 per request. "
            "Received: 2000000 in shape=[2, 1000, 1000, 1]",
        ),
    ],
    ids=[
        "model",
        "version",
        "label",
        "signature",
        "no spec",
        "no name",
        "no input",
        "other input",
        "type",
        "content",
        "claimed shape",
        "pixels",
    ],
)
def test_what_it_refuses(prediction, make, code, message):
    assert error_of(prediction.Predict, make()) == (code, message)


def test_a_wrong_rank_is_an_error_and_the_server_lives(prediction):
    code, message = error_of(prediction.Predict, predict_request(IMAGE[0]))
    assert code is INVALID
    assert "is not compatible with expected shape [?,?,?,1]" in message
    prediction.Predict(predict_request(), timeout=PATIENCE)


def test_xla_is_an_internal_error(prediction):
    code, message = error_of(prediction.Predict, predict_request(signature="jit"))
    assert code is grpc.StatusCode.INTERNAL
    assert message.startswith("XLA compilation disabled")


def test_a_message_beyond_the_limit(prediction):
    code, message = error_of(prediction.Predict, predict_request(np.zeros((1, 2500, 1000, 1), "float32")))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE) in message


def test_bytes_that_are_no_request(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, _ = error_of(call, b"\xff\xff\xff\xff")
    assert code in (grpc.StatusCode.INTERNAL, INVALID)


def test_a_deadline_reaches_the_computation(server, prediction, monkeypatch):
    seen = []
    with server.models.borrow("den") as servable:
        predict = type(servable).predict
        monkeypatch.setattr(
            type(servable), "predict", lambda *args, timeout: (seen.append(timeout), predict(*args, timeout=timeout))[1]
        )
        prediction.Predict(predict_request(), timeout=17.0)
        prediction.Predict(predict_request())
    assert 0 < seen[0] < 20.0  # gRPC rounds what it sends
    assert 20.0 < seen[1] <= server.limits.timeout
    code, _ = error_of(prediction.Predict, predict_request(np.zeros((1, 1400, 1000, 1), "float32")), timeout=0.005)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_metadata(prediction):
    request = spec(get_model_metadata_pb2.GetModelMetadataRequest())
    request.metadata_field.append("signature_def")
    answer = prediction.GetModelMetadata(request, timeout=PATIENCE)
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(definitions)
    assert definitions.signature_def["serving_default"].inputs["image"].name == "serving_default_image:0"
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("den", 1)


@pytest.mark.parametrize(
    ("name", "fields", "code", "message"),
    [
        ("den", [], INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        ("den", ["other"], INVALID, "Metadata field other is not supported"),
        ("nope", ["signature_def"], NOT_FOUND, "Servable not found for request: Latest(nope)"),
    ],
    ids=["none", "other", "model"],
)
def test_metadata_that_is_refused(prediction, name, fields, code, message):
    request = spec(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields), name)
    assert error_of(prediction.GetModelMetadata, request) == (code, message)


def test_status(models):
    request = spec(get_model_status_pb2.GetModelStatusRequest())
    (state,) = models.GetModelStatus(request, timeout=PATIENCE).model_version_status
    assert (state.version, state.State.Name(state.state), state.status.error_code) == (1, "AVAILABLE", 0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "nope"}, "Could not find any versions of model nope"),
        ({"version": 9}, "Could not find version 9 of model den"),
    ],
    ids=["model", "version"],
)
def test_status_of_what_is_not_there(models, kwargs, message):
    request = spec(get_model_status_pb2.GetModelStatusRequest(), **kwargs)
    assert error_of(models.GetModelStatus, request) == (NOT_FOUND, message)


@pytest.mark.parametrize(
    ("service", "method", "request_type", "match"),
    [
        ("prediction", "Classify", classification_pb2.ClassificationRequest, "Received: Classify"),
        ("prediction", "Regress", regression_pb2.RegressionRequest, "Received: Regress"),
        ("prediction", "MultiInference", inference_pb2.MultiInferenceRequest, "Received: MultiInference"),
        (
            "models",
            "HandleReloadConfigRequest",
            model_management_pb2.ReloadConfigRequest,
            "finds new versions by itself",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value[0].isupper() else "",
)
def test_what_is_not_there_says_so(request, service, method, request_type, match):
    code, message = error_of(getattr(request.getfixturevalue(service), method), request_type())
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert match in message


@pytest.mark.parametrize(
    "name",
    ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"],
    ids=["server", "prediction", "model"],
)
def test_health(channel, name):
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_a_service_that_is_not_there(channel):
    code, _ = error_of(health_pb2_grpc.HealthStub(channel).Check, health_pb2.HealthCheckRequest(service="nope"))
    assert code is NOT_FOUND


def test_status_and_health_answer_while_all_places_are_taken(server, channel, prediction, models, monkeypatch):
    """One request too many is refused at once; nobody else is held up."""
    leave, inside = threading.Event(), threading.Semaphore(0)
    with server.models.borrow("den") as servable:
        kind = type(servable)

    def stay(self, *args, **kwargs):
        inside.release()
        assert leave.wait(PATIENCE)
        raise ServingError(grpc.StatusCode.ABORTED, "left")

    monkeypatch.setattr(kind, "predict", stay)
    limits = server.limits
    calls = [
        prediction.Predict.future(predict_request(), timeout=PATIENCE) for _ in range(limits.concurrency + limits.queue)
    ]
    try:
        for _ in range(limits.concurrency):
            assert inside.acquire(timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while server.waiting < limits.queue and time.monotonic() < end:
            time.sleep(0.005)
        code, message = error_of(prediction.Predict, predict_request())
        assert (code, message) == (
            grpc.StatusCode.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full",
        )
        models.GetModelStatus(spec(get_model_status_pb2.GetModelStatusRequest()), timeout=PATIENCE)
        test_health(channel, "")
    finally:
        leave.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.ABORTED}


def test_64_callers_of_whom_one_sends_rubbish(prediction):
    images = [np.random.default_rng(n).uniform(size=(1, 3 + n % 4, 5, 1)).astype("float32") for n in range(64)]
    alone = [tf.make_ndarray(prediction.Predict(predict_request(image)).outputs["denoised"]) for image in images]
    images[17] = IMAGE[0]
    calls = [prediction.Predict.future(predict_request(image), timeout=PATIENCE) for image in images]
    for number, call in enumerate(calls):
        if number == 17:
            assert call.code() is INVALID
        else:
            np.testing.assert_array_equal(tf.make_ndarray(call.result().outputs["denoised"]), alone[number])


def test_nothing_is_computed_for_a_caller_who_has_hung_up(server, prediction, monkeypatch):
    leave, inside = threading.Event(), threading.Semaphore(0)
    with server.models.borrow("den") as servable:
        kind = type(servable)
    predict = kind.predict

    def stay(self, *args, **kwargs):
        inside.release()
        assert leave.wait(PATIENCE)
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(kind, "predict", stay)
    calls = [prediction.Predict.future(predict_request(), timeout=PATIENCE) for _ in range(server.limits.concurrency)]
    try:
        for _ in calls:
            assert inside.acquire(timeout=PATIENCE)
        waiting = prediction.Predict.future(predict_request(), timeout=PATIENCE)
        end = time.monotonic() + PATIENCE
        while not server.waiting and time.monotonic() < end:
            time.sleep(0.005)
        assert waiting.cancel()
        time.sleep(0.2)  # until the server has heard of it
    finally:
        leave.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}
    while server.waiting and time.monotonic() < end:
        time.sleep(0.005)
    assert not inside.acquire(timeout=0.1)


def test_callers_who_send_nothing_do_not_keep_others_out():
    """Each holds a thread; their connection ends after a while."""
    silent = threading.Event()
    limits = Limits(concurrency=1, queue=1, timeout=1.0)

    def nothing():
        silent.wait(60)
        yield from ()

    with LocalServer({"den": GOLDEN / "model" / "den"}, limits=limits) as server:
        with grpc.insecure_channel(server.grpc_address) as channel, grpc.insecure_channel(server.grpc_address) as other:
            method = "/tensorflow.serving.PredictionService/Predict"
            calls = [channel.stream_unary(method).future(nothing()) for _ in range(12)]
            check = health_pb2_grpc.HealthStub(other).Check
            end = time.monotonic() + 30
            while True:
                try:
                    answer = check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
                    break
                except grpc.RpcError:
                    assert time.monotonic() < end
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            silent.set()
            for call in calls:
                call.cancel()


def test_the_limit_of_pixels_holds_for_files_too():
    """They are counted by their headers."""
    limits = Limits(max_pixels=25)
    picture = tf.io.encode_png(np.zeros((5, 4, 1), np.uint8)).numpy()
    with LocalServer({"den": GOLDEN / "model" / "den"}, limits=limits) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

            def ask(*files):
                request = predict_pb2.PredictRequest()
                request.model_spec.name, request.model_spec.signature_name = "den", "png"
                request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(files)))
                return stub.Predict(request, timeout=30)

            assert ask(picture).outputs
            for files in ([picture, picture], [tf.io.encode_jpeg(np.zeros((6, 5, 1), np.uint8)).numpy()]):
                with pytest.raises(grpc.RpcError) as raised:
                    ask(*files)
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "this server takes at most 25 per request" in raised.value.details()
