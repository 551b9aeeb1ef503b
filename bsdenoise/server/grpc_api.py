"""gRPC as TensorFlow-Serving speaks it, on tensorflow-serving-api's own servicers, and the standard health service."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import any_pb2, wrappers_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from bsdenoise.server import tensors
from bsdenoise.server.errors import ServingError
from bsdenoise.server.limits import MAX_MESSAGE_BYTES, Arrivals
from bsdenoise.server.prediction import House, Spec, predict

SIGNATURE_DEF = "signature_def"  # the only metadata there is
# Threads beside those of the predictions that compute and wait, so that status and health answer while those do.
SPARE_THREADS = 8
_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
HEALTH_NAMES = ("", _PREDICTION, _MODEL)
_ONLY_PREDICT = "This server answers Predict, GetModelMetadata and GetModelStatus. Received: {}."
_NO_RELOAD = (
    "This server does not take a new configuration while it runs: it finds new versions by itself; for other models "
    "start it again."
)


class GrpcServer:
    """The gRPC half of a server.

    Args:
        house: The server's parts.
        address: HOST:PORT; port 0 picks a free one.
        arrivals: Counts the predictions.

    Attributes:
        port: The port that it listens on.

    Raises:
        OSError: If the address cannot be had.
    """

    def __init__(self, house: House, address: str, arrivals: Arrivals):
        limits = house.limits
        self._server = grpc.server(
            ThreadPoolExecutor(limits.concurrency + limits.queue + SPARE_THREADS, thread_name_prefix="grpc"),
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                # A caller who opens a call and sends nothing holds a thread: connections end after so long, and what is
                # asked on them then has as long again. Clients connect anew by themselves.
                ("grpc.max_connection_age_ms", int(1000 * limits.timeout)),
                ("grpc.max_connection_age_grace_ms", int(1000 * limits.timeout)),
                ("grpc.so_reuseport", 0),  # else two servers would share a port, and each get some of the requests
            ],
        )
        self._health = health.HealthServicer()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(house, arrivals), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Status(house), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.serves(False)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"{address}: cannot be listened on for gRPC; is the port in use?") from error

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def serves(self, is_serving: bool) -> None:
        """Set what the health service says."""
        kinds = health_pb2.HealthCheckResponse
        for name in HEALTH_NAMES:
            self._health.set(name, kinds.SERVING if is_serving else kinds.NOT_SERVING)

    def announce_stop(self) -> None:
        """Let the health service say from now on that it does not serve."""
        self._health.enter_graceful_shutdown()

    def stop(self) -> None:
        """Close the port, and end what is left: those who watch its health would do so for ever."""
        self._server.stop(0.0).wait()


@contextlib.contextmanager
def _errors_told(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn a `ServingError` into the status of the call."""
    try:
        yield
    except ServingError as error:
        context.abort(error.code, error.message)


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, house: House, arrivals: Arrivals):
        self._house = house
        self._arrivals = arrivals

    def Predict(self, request, context):  # noqa: N802
        with _errors_told(context):
            self._arrivals.enter()
            if not context.add_callback(self._arrivals.leave):  # the call has ended already
                self._arrivals.leave()
            spec = _spec(request)
            answer = predict(
                self._house,
                spec,
                lambda definition: tensors.to_arrays(request.inputs),
                tuple(request.output_filter),
                entrypoint="GRPC",
                timeout=context.time_remaining(),
                is_gone=lambda: not context.is_active(),
            )
            if sum(array.nbytes for array in answer.outputs.values()) >= MAX_MESSAGE_BYTES:
                raise ServingError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "The answer is too large for one message of gRPC: 2 GiB"
                )
            return predict_pb2.PredictResponse(
                model_spec=_answered(spec.name, answer.version, answer.signature),
                outputs={name: tensors.to_proto(array) for name, array in answer.outputs.items()},
            )

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _errors_told(context):
            _check_metadata_fields(request.metadata_field)
            spec = _spec(request)
            with self._house.models.borrow(spec.name, spec.version, spec.label) as servable:
                definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
                response = get_model_metadata_pb2.GetModelMetadataResponse(
                    model_spec=_answered(spec.name, servable.version)
                )
            packed = any_pb2.Any()
            packed.Pack(definitions)
            response.metadata[SIGNATURE_DEF].CopyFrom(packed)
            return response

    def Classify(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _ONLY_PREDICT.format("Classify"))

    def Regress(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _ONLY_PREDICT.format("Regress"))

    def MultiInference(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _ONLY_PREDICT.format("MultiInference"))


class _Status(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, house: House):
        self._house = house

    def GetModelStatus(self, request, context):  # noqa: N802
        with _errors_told(context):
            spec = _spec(request)
            states = self._house.models.status(spec.name, spec.version, spec.label)
            return get_model_status_pb2.GetModelStatusResponse(
                model_version_status=[
                    get_model_status_pb2.ModelVersionStatus(
                        version=state.version,
                        state=state.state,
                        status={"error_code": grpc.StatusCode[state.code].value[0], "error_message": state.message},
                    )
                    for state in states
                ]
            )

    def HandleReloadConfigRequest(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, _NO_RELOAD)


def _spec(request) -> Spec:
    """Read which signature of which version of which model a request is about."""
    if not request.HasField("model_spec"):
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    sent = request.model_spec
    if not sent.name:
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    chosen = sent.WhichOneof("version_choice")
    return Spec(
        sent.name,
        sent.version.value if chosen == "version" else None,
        sent.version_label if chosen == "version_label" else None,
        sent.signature_name,
    )


def _answered(name: str, version: int, signature: str = "") -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name=name, version=wrappers_pb2.Int64Value(value=version), signature_name=signature)


def _check_metadata_fields(fields) -> None:
    if not fields:
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for field in fields:
        if field != SIGNATURE_DEF:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
