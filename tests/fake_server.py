"""A model server that is a few lines of NumPy behind both protocols, and fails on demand."""

import base64
import contextlib
import http.server
import io
import json
import threading
from concurrent import futures

import numpy as np
from PIL import Image

DESCRIPTION = {
    "format": 1,
    "channels": 3,
    "noise": {"kind": "gaussian", "sigma_low": 0.05, "sigma_high": 0.2},
    "pixels": {"units": "fractions of full scale", "fractional": True, "offset": 0.0, "scale": 1.0, "low": -16.0,
               "high": 16.0},
    "limits": {"max_pixels": 4096, "grid": 4, "tile": 64, "overlap": 8, "untiled_pixels": 4096},
    "signatures": ["serving_default", "with_sigma", "encoded", "encoded_with_sigma", "posterior", "own_sigma",
                   "describe"],
}  # fmt: skip
# What differs of a model without a posterior.
ONLY_DENOISES = {"method": "n2n", "factor": None, "signatures": ["serving_default", "encoded", "describe"]}


class FakeModel:
    """What the server computes: halves images; σ shows in the result.

    Attributes:
        description: What `describe` answers.
        failures: Each is used up by one request that it makes fail: an HTTP status or a gRPC code's name, and a text;
            "hang up" closes the connection, "wait" does so once `go` is set.
        calls: Signature and shapes of what came, in order.
        headers: What came with each.
        running: Requests at this moment, `most_running` at most.
    """

    def __init__(self, **changes):
        self.description = {**DESCRIPTION, **changes}
        self.failures = []
        self.calls = []
        self.headers = []
        self.states = ["AVAILABLE"]
        self.go = threading.Event()
        self.fails_for = lambda signature, inputs: None
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    def predict(self, signature, inputs):
        with self.lock:
            self.calls.append((signature, {name: np.shape(value) for name, value in inputs.items()}))
        assert signature in self.description["signatures"], f"there is no {signature}"
        if signature == "describe":
            return {"description": [json.dumps(self.description)] * len(inputs["format"])}
        if signature == "own_sigma":
            return {"sigma": 0.1 + 0.1 * inputs["image"].mean(axis=(1, 2, 3))}
        if signature.startswith("encoded"):
            sigma = inputs.get("sigma", [0.1] * len(inputs["image_bytes"]))
            return {"denoised_bytes": [halved(*pair) for pair in zip(inputs["image_bytes"], sigma, strict=True)]}
        image = inputs["image"]
        sigma = np.reshape(inputs.get("sigma", 0.1), (-1, 1, 1, 1)) + np.zeros_like(image)
        denoised = (image / 2 + sigma / 8).astype("float32")
        if signature == "posterior":
            psnr = np.arange(len(image), dtype="float32") + 20
            return {"denoised": denoised, "mean": image / 4, "std": sigma / 2, "estimated_psnr": psnr}
        return {"denoised": denoised}

    def failure(self, signature, inputs):
        with self.lock:
            if self.failures:
                return self.failures.pop(0)
        return self.fails_for(signature, inputs)

    @contextlib.contextmanager
    def counted(self):
        with self.lock:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1


def halved(data, sigma):
    """Halves a PNG's or JPEG's pixels and adds an eighth of sigma, 8 bits."""
    pixels = np.asarray(Image.open(io.BytesIO(data))) / 255
    file = io.BytesIO()
    Image.fromarray(np.floor((pixels / 2 + sigma / 8) * 255 + 0.5).astype("uint8")).save(file, "PNG")
    return file.getvalue()


# --- REST ----------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.model.headers.append(dict(self.headers))
        failure = self.model.failure("", {})
        if failure:
            return self.fail(*failure)
        self.answer(200, {"model_version_status": [{"version": "1", "state": state} for state in self.model.states]})

    def do_POST(self):
        self.model.headers.append({name.lower(): value for name, value in self.headers.items()})
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inputs = {name: self.read(value) for name, value in body["inputs"].items()}
        if not self.path.endswith("/v1/models/denoiser:predict"):
            return self.answer(404, {"error": f"Servable not found for request: {self.path}"})
        with self.model.counted():
            failure = self.model.failure(body["signature_name"], inputs)
            if failure:
                return self.fail(*failure)
            outputs = self.model.predict(body["signature_name"], inputs)
        written = {name: self.write(value) for name, value in outputs.items()}
        self.answer(200, {"outputs": written if len(written) > 1 else next(iter(written.values()))})

    def fail(self, kind, text=""):
        if kind == "wait":
            self.model.go.wait()
        if kind in ("hang up", "wait"):
            self.close_connection = True
            return None
        return self.answer(kind, text if isinstance(text, bytes) else {"error": text})

    def answer(self, status, content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    @staticmethod
    def read(value):
        if isinstance(value[0], dict):
            return [base64.b64decode(item["b64"]) for item in value]
        return np.array(value).astype("float32")

    @staticmethod
    def write(value):
        if isinstance(value, list):
            return [{"b64": base64.b64encode(item).decode()} if isinstance(item, bytes) else item for item in value]
        return value.tolist()


class HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_):
        pass  # clients that hang up


@contextlib.contextmanager
def rest(model, tls=None, port=0):
    """Serves a model over REST; `tls` is an `ssl.SSLContext`. Gives its URL."""
    server = HttpServer(("127.0.0.1", port), type("ModelHandler", (Handler,), {"model": model}))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        model.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


# --- gRPC ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def grpc(model, tls=None, port=0):
    """Serves a model over gRPC; `tls` is gRPC's server credentials. Gives its URL."""
    import grpc as library
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def fail(context, kind, text=""):
        if kind == "wait":
            model.go.wait()
        context.abort(getattr(library.StatusCode, "UNAVAILABLE" if kind in ("wait", "hang up") else kind), text)

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            model.headers.append(dict(context.invocation_metadata()))
            if request.model_spec.name != "denoiser":
                context.abort(library.StatusCode.NOT_FOUND, f"Servable not found: {request.model_spec}")
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            with model.counted():
                failure = model.failure(request.model_spec.signature_name, inputs)
                if failure:
                    fail(context, *failure)
                outputs = model.predict(request.model_spec.signature_name, inputs)
            answer = predict_pb2.PredictResponse()
            for name, value in outputs.items():
                answer.outputs[name].CopyFrom(
                    tf.make_tensor_proto(value, None if isinstance(value, list) else "float32")
                )
            return answer

    class Status(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            failure = model.failure("", {})
            if failure:
                fail(context, *failure)
            answer = get_model_status_pb2.GetModelStatusResponse()
            for state in model.states:
                answer.model_version_status.add(version=1, state=state)
            return answer

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = library.server(futures.ThreadPoolExecutor(8), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(), server)
    where = f"127.0.0.1:{port}"
    port = server.add_secure_port(where, tls) if tls else server.add_insecure_port(where)
    server.start()
    try:
        yield f"grpc{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        model.go.set()
        server.stop(None).wait()


SERVERS = {"rest": rest, "grpc": grpc}
