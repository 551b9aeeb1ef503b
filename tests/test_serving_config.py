"""What lies in serving/: servers' configuration, Kubernetes' manifests, alerts; and whether it fits together."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import tyro
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from bsdenoise import config
from bsdenoise.server import guard as server_guard
from bsdenoise.server import metrics

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "serving"
MANIFESTS = sorted((SERVING / "kubernetes").glob("*.yaml"))
ENTRYPOINT = (ROOT / "docker" / "serving-entrypoint.sh").read_text()
KUBERNETES = ("1.29", "1.37")  # the oldest and the newest that are meant
USUAL_REQUEST_MIB = int(re.search(r"USUAL_REQUEST_MIB=(\d+)", ENTRYPOINT)[1])
ENTRYPOINT_DEFAULTS = dict(re.findall(r'"\$\{([A-Z_]+):=([^$}]+)\}"', ENTRYPOINT))


# Files of protocol buffers


def message(name, nested=(), **fields):
    """Makes a message's class from what TensorFlow-Serving's own .proto files say, which no package brings.

    `fields` gives for each field its number and its type: a type's name in lower case, or a message's.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="t", syntax="proto3")
    for type_name, types in [*nested, (name, fields)]:
        described = file.message_type.add(name=type_name)
        for field_name, (number, kind) in types.items():
            field = described.field.add(name=field_name, number=number, label=1)
            if hasattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}"):
                field.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
            else:
                field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))


# The numbers of the fields matter to nothing here.
MonitoringConfig = message(
    "MonitoringConfig",
    [("Prometheus", {"enable": (1, "bool"), "path": (2, "string")})],
    prometheus_config=(1, "Prometheus"),
)
SSLConfig = message(
    "SSLConfig",
    server_key=(1, "string"),
    server_cert=(2, "string"),
    custom_ca=(3, "string"),
    client_verify=(4, "bool"),
)


def read(name, kind):
    return text_format.Parse((SERVING / name).read_text(), kind())


def test_models_config():
    (model,) = read("models.config", model_server_config_pb2.ModelServerConfig).model_config_list.config
    assert model.name == ENTRYPOINT_DEFAULTS["MODEL_NAME"]
    assert model.base_path == f"{ENTRYPOINT_DEFAULTS['MODEL_BASE_PATH']}/{model.name}"
    assert model.model_platform == "tensorflow"
    served = set(model.model_version_policy.specific.versions)
    assert set(model.version_labels) == {"stable", "canary"}
    assert set(model.version_labels.values()) == served == {1}


def test_nothing_switches_batching_on():
    """But for what the entrypoint refuses, no file that is shipped names it."""
    paths = [path for folder in ("serving", "docker") for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = [path.name for path in paths if re.search(r"(?i)batching", path.read_text())]
    assert sorted(named) == ["README.md", "serving-entrypoint.sh"]
    assert '"--enable_batching=false"' in ENTRYPOINT
    assert not re.search(r"arguments\S*\(?\s*\"--(enable_batching=true|batching_parameters_file)", ENTRYPOINT)


def test_monitoring_config():
    prometheus = read("monitoring.config", MonitoringConfig).prometheus_config
    assert prometheus.enable is True
    assert prometheus.path == metrics.PATH  # the local server's


def test_ssl_config_example():
    tls = read("ssl.config.example", SSLConfig)
    for text in (tls.server_key, tls.server_cert, tls.custom_ca):
        assert text.startswith("-----BEGIN ") and text.endswith("-----\n")
    assert tls.client_verify is True


def test_a_misspelt_field_is_found():
    with pytest.raises(text_format.ParseError, match='no field named "prometheus"'):
        text_format.Parse("prometheus { enable: true }", MonitoringConfig())


# Kubernetes


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def by_kind(kind):
    """Gives the manifests of a kind by their names."""
    found = [document for path in MANIFESTS for document in documents(path) if document["kind"] == kind]
    return {document["metadata"]["name"]: document for document in found}


@pytest.fixture
def deployment():
    (deployment,) = by_kind("Deployment").values()
    return deployment


@pytest.fixture
def pod(deployment):
    return deployment["spec"]["template"]


@pytest.fixture
def container(pod):
    """The model server's."""
    return next(item for item in pod["spec"]["containers"] if item["name"] == "model-server")


@pytest.fixture
def guard(pod):
    return next(item for item in pod["spec"]["containers"] if item["name"] == "guard")


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_fit_the_published_schemas(path, version):
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_key_is_found(deployment):
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)


def test_all_manifests_are_applied():
    kustomization = yaml.safe_load((SERVING / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [f"kubernetes/{path.name}" for path in MANIFESTS]
    assert {kind for path in MANIFESTS for kind in [documents(path)[0]["kind"].lower()]} == {
        path.stem for path in MANIFESTS
    }


def test_kustomize_puts_it_together(tmp_path):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", SERVING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == 1 + sum(len(documents(path)) for path in MANIFESTS)  # and the ConfigMap
    for document in built:
        kubernetes_validate.validate(document, KUBERNETES[-1], strict=True)
    (mapped,) = (document for document in built if document["kind"] == "ConfigMap")
    assert mapped["metadata"]["name"] == "bsdenoise-serving"
    assert mapped["data"]["models.config"] == (SERVING / "models.config").read_text()


def test_the_gpu_component_asks_for_a_gpu(tmp_path):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    shutil.copytree(SERVING, tmp_path / "serving")
    with (tmp_path / "serving" / "kustomization.yaml").open("a") as file:
        file.write("components:\n  - kubernetes/gpu\n")
    done = subprocess.run(["kubectl", "kustomize", tmp_path / "serving"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (deployment,) = (item for item in yaml.safe_load_all(done.stdout) if item["kind"] == "Deployment")
    kubernetes_validate.validate(deployment, KUBERNETES[-1], strict=True)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "12Gi", "nvidia.com/gpu": "1"}


def test_selectors_find_the_pods(deployment, pod):
    labels = pod["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in by_kind("Service").values()]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in by_kind("PodDisruptionBudget").values()]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in by_kind("NetworkPolicy").values()]
    selectors += [item["labelSelector"]["matchLabels"] for item in pod["spec"]["topologySpreadConstraints"]]
    assert len(selectors) == 6
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_ports_are_those_of_the_server_and_of_the_guard(container, guard):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": int(ENTRYPOINT_DEFAULTS["GRPC_PORT"]),
        "metrics": int(ENTRYPOINT_DEFAULTS["REST_PORT"]),
    }
    (port,) = guard["ports"]
    assert (port["name"], port["containerPort"]) == ("rest", config.GuardConfig.port)
    offered = {
        (port["port"], port["targetPort"]) for item in by_kind("Service").values() for port in item["spec"]["ports"]
    }
    assert offered == {(8500, "grpc"), (8501, "rest")}


def test_nobody_but_prometheus_reaches_rest_without_the_guard():
    (policy,) = by_kind("NetworkPolicy").values()
    clients, monitoring = policy["spec"]["ingress"]
    assert {port["port"] for port in clients["ports"]} == {"grpc", "rest"}
    assert {port["port"] for port in monitoring["ports"]} == {"metrics"}
    assert "namespaceSelector" in monitoring["from"][0]


def test_the_guard_sends_on_what_the_server_computes(container, guard):
    settings = vars(tyro.cli(config.GuardConfig, args=guard["args"]))
    assert settings["server"] == f"http://127.0.0.1:{ENTRYPOINT_DEFAULTS['REST_PORT']}"
    mebibytes = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    images = (mebibytes - int(ENTRYPOINT_DEFAULTS["MEMORY_RESERVE_MIB"])) // USUAL_REQUEST_MIB
    assert settings["at_once"] == images - images // 2  # what gRPC leaves
    (timeout,) = (int(item["value"]) for item in container["env"] if item["name"] == "REST_TIMEOUT_SECONDS")
    assert settings["timeout"] < timeout
    spare = {item["name"]: item["value"] for item in container["env"]}["REST_SPARE_THREADS"]
    assert int(spare) == server_guard.STATUS_THREADS


def test_volumes_are_mounted_where_they_are_read(pod, container):
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(volumes) == set(mounts)
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    (model,) = read("models.config", model_server_config_pb2.ModelServerConfig).model_config_list.config
    assert environment["MODEL_CONFIG_FILE"] == f"{mounts['config']['mountPath']}/models.config"
    assert environment["MODEL_NAME"] == model.name
    assert model.base_path.startswith(mounts["models"]["mountPath"] + "/")
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] in by_kind("PersistentVolumeClaim")
    assert mounts["models"]["readOnly"] is True
    assert mounts["tmp"]["mountPath"] == ENTRYPOINT_DEFAULTS["RUNTIME_FOLDER"]
    assert not mounts["tmp"].get("readOnly")
    (generated,) = yaml.safe_load((SERVING / "kustomization.yaml").read_text())["configMapGenerator"]
    assert (volumes["config"]["configMap"]["name"], generated["files"]) == (generated["name"], ["models.config"])


def test_settings_exist(container):
    for variable in container["env"]:
        assert re.search(rf"^#   {variable['name']} ", ENTRYPOINT, re.MULTILINE), variable


def test_probes_run_the_health_script(container):
    dockerfile = (ROOT / "docker" / "serving.Dockerfile").read_text()
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        (command,) = container[name]["exec"]["command"]
        assert f"serving-health.sh {command}\n" in dockerfile
        limit = re.search(r"HEALTH_TIMEOUT_SECONDS:-(\d+)", (ROOT / "docker" / "serving-health.sh").read_text())[1]
        assert container[name]["timeoutSeconds"] > int(limit)


def test_a_pod_ends_its_requests_before_it_goes(pod, container):
    (timeout,) = (int(item["value"]) for item in container["env"] if item["name"] == "REST_TIMEOUT_SECONDS")
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert timeout < pause < pod["spec"]["terminationGracePeriodSeconds"]


def test_pods_have_no_rights(pod, container):
    (user,) = re.findall(r"^USER (\d+):", (ROOT / "docker" / "serving.Dockerfile").read_text(), re.MULTILINE)
    security = pod["spec"]["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, int(user))
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["automountServiceAccountToken"] is False
    (policy,) = by_kind("NetworkPolicy").values()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and policy["spec"]["egress"] == []


def test_memory_is_certain_and_holds_two_images(container):
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    mebibytes = int(resources["limits"]["memory"].removesuffix("Gi")) * 1024
    images = (mebibytes - int(ENTRYPOINT_DEFAULTS["MEMORY_RESERVE_MIB"])) // USUAL_REQUEST_MIB
    assert images == int(resources["requests"]["cpu"]) == 2


def test_the_autoscaler_scales_the_deployment(deployment):
    (scaler,) = by_kind("HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert target["apiVersion"] == deployment["apiVersion"]
    assert "replicas" not in deployment["spec"]  # each of the two would undo the other
    (budget,) = by_kind("PodDisruptionBudget").values()
    assert budget["spec"]["maxUnavailable"] < scaler["spec"]["minReplicas"]


# Metrics


# Named in TensorFlow-Serving's and TensorFlow's sources; `up` is Prometheus' own.
SAMPLES = {
    "up": {"job", "instance"},
    metrics.REQUEST_COUNT: {"model_name", "status"},
    f"{metrics.REQUEST_LATENCY}_bucket": {"model_name", "API", "entrypoint", "le"},
    f"{metrics.RUNTIME_LATENCY}_bucket": {"model_name", "API", "runtime", "le"},
    metrics.LOAD_ATTEMPTS: {"model_path", "status"},
}
# Words of PromQL that look like metrics.
WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "or", "vector"}


def dashboard_expressions():
    dashboard = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def alerts():
    (group,) = yaml.safe_load((SERVING / "alerts.yaml").read_text())["groups"]
    return group["rules"]


@pytest.mark.parametrize("expression", [*dashboard_expressions(), *(rule["expr"] for rule in alerts())])
def test_metrics_and_their_labels_exist(expression):
    bare = re.sub(r'"[^"]*"', '""', expression)
    grouping = [name.strip() for names in re.findall(r"by \(([^)]*)\)", bare) for name in names.split(",")]
    filters = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", bare)
    names = re.findall(r"[a-zA-Z_:][\w:]*", re.sub(r"by \([^)]*\)|\{[^}]*\}|\[[^\]]*\]|\d+e\d+", " ", bare))
    used = {name for name in names if name not in WORDS}
    assert used and used <= set(SAMPLES)
    labels = set.union(*(SAMPLES[name] for name in used)) | {"job", "instance"}
    assert set(grouping) | set(filters) <= labels


def test_every_alert_says_what_is_wrong():
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


ALERTS_TEST = """
rule_files: [alerts.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="bsdenoise", instance="a"}'
        values: "1 1 1 0 0 0 0"
    alert_rule_test:
      - {eval_time: 2m, alertname: DenoiserDown}
      - eval_time: 6m
        alertname: DenoiserDown
        exp_alerts:
          - exp_labels: {severity: critical, job: bsdenoise, instance: a}
            exp_annotations: {summary: "a does not answer"}
  - interval: 1m
    input_series:
      - series: ':tensorflow:serving:request_count{job="bsdenoise", model_name="denoiser", status="OK"}'
        values: "0+90x30"
      - series: ':tensorflow:serving:request_count{job="bsdenoise", model_name="denoiser", status="INVALID_ARGUMENT"}'
        values: "0+100x30"
      - series: ':tensorflow:serving:request_count{job="bsdenoise", model_name="denoiser", status="UNAVAILABLE"}'
        values: "0x15 0+10x15"
    alert_rule_test:
      - {eval_time: 14m, alertname: DenoiserOverloaded}
      - {eval_time: 30m, alertname: DenoiserFails}
      - eval_time: 30m
        alertname: DenoiserOverloaded
        exp_alerts:
          - exp_labels: {severity: warning, job: bsdenoise, model_name: denoiser}
            exp_annotations:
              summary: "5% of the requests to denoiser are turned away or too late"
              action: "More replicas, or more memory for each"
  - interval: 1m
    input_series:
      - series: ':tensorflow:serving:request_count{job="bsdenoise", model_name="denoiser", status="OK"}'
        values: "0+75x30"
      - series: ':tensorflow:serving:request_count{job="bsdenoise", model_name="denoiser", status="INTERNAL"}'
        values: "0+25x30"
    alert_rule_test:
      - eval_time: 20m
        alertname: DenoiserFails
        exp_alerts:
          - exp_labels: {severity: critical, job: bsdenoise, model_name: denoiser}
            exp_annotations: {summary: "25% of the requests to denoiser fail"}
  - interval: 1m
    input_series:
      - series: ':tensorflow:serving:request_latency_bucket{job="b", model_name="m", API="Predict", le="5e+07"}'
        values: "0+98x60"
      - series: ':tensorflow:serving:request_latency_bucket{job="b", model_name="m", API="Predict", le="9e+07"}'
        values: "0+100x60"
      - series: ':tensorflow:serving:request_latency_bucket{job="b", model_name="m", API="Predict", le="+Inf"}'
        values: "0+100x60"
      - series: ':tensorflow:serving:request_latency_bucket{job="b", model_name="quick", API="predict", le="5e+07"}'
        values: "0+100x60"
      - series: ':tensorflow:serving:request_latency_bucket{job="b", model_name="quick", API="predict", le="+Inf"}'
        values: "0+100x60"
    alert_rule_test:
      - eval_time: 40m
        alertname: DenoiserSlow
        exp_alerts:
          - exp_labels: {severity: warning, job: b, model_name: m}
            exp_annotations: {summary: "1 % of the requests to m take longer than a minute"}
  - interval: 1m
    input_series:
      - series: ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/denoiser/2", status="fail"}'
        values: "0x5 1x30"
      - series: ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/denoiser/1", status="success"}'
        values: "0x5 1x30"
    alert_rule_test:
      - {eval_time: 4m, alertname: DenoiserVersionFails}
      - eval_time: 8m
        alertname: DenoiserVersionFails
        exp_alerts:
          - exp_labels: {severity: warning, model_path: /models/denoiser/2, status: fail}
            exp_annotations: {summary: "/models/denoiser/2 cannot be loaded"}
      - {eval_time: 30m, alertname: DenoiserVersionFails}
"""


def test_alerts_come_when_they_should(tmp_path):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    shutil.copy(SERVING / "alerts.yaml", tmp_path)
    (tmp_path / "test.yaml").write_text(ALERTS_TEST)
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


# The proxy


def test_the_proxy_waits_longer_than_the_server_and_takes_what_it_takes():
    text = (SERVING / "nginx.conf").read_text()
    (wait,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(wait) > int(ENTRYPOINT_DEFAULTS["REST_TIMEOUT_SECONDS"])
    (upstream,) = re.findall(r"server 127\.0\.0\.1:(\d+);", text)
    assert int(upstream) == config.GuardConfig.port  # not the model server's
    (size,) = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(size) == config.GuardConfig.max_body
    assert "limit_conn callers" in text and "limit_conn all" in text


@pytest.mark.parametrize(
    "path, passes",
    [
        ("/v1/models/denoiser", True),
        ("/v1/models/denoiser:predict", True),
        ("/v1/models/denoiser/metadata", True),
        ("/v1/models/denoiser/versions/12:predict", True),
        ("/v1/models/denoiser/labels/stable:predict", True),
        ("/v1/models/denoiser:classify", False),
        ("/v1/models/denoiser/versions/x:predict", False),
        ("/monitoring/prometheus/metrics", False),
        ("/v1/models", False),
    ],
)
def test_what_the_proxy_lets_through(path, passes):
    (pattern,) = re.findall(r'location ~ "(.*)" \{', (SERVING / "nginx.conf").read_text())
    assert bool(re.search(pattern, path)) == passes


# The guide


@pytest.fixture(scope="module")
def guide():
    return (SERVING / "README.md").read_text()


def test_files_that_the_guide_names_are_there(guide):
    links = re.findall(r"\]\(([^)#:]+)\)", guide)
    paths = re.findall(r"\b(?:docker|serving)/[\w./-]*\w", guide)
    assert len(links) > 5 and len(paths) > 5
    assert [link for link in links if not (SERVING / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_settings_that_the_guide_names_exist(guide):
    named = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", guide))
    codes = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED"}
    documented = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+", ENTRYPOINT[: ENTRYPOINT.index("set -euo")]))
    assert len(named) > 6
    assert named - codes <= documented


def test_alerts_are_all_in_the_guide(guide):
    for rule in alerts():
        assert f"`{rule['alert']}`" in guide


# Nothing that must stay private


@pytest.mark.parametrize(
    "path",
    [path for folder in ("serving", "docker") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_secrets(path):
    if path.suffix == ".pyc":
        pytest.skip("compiled")
    text = path.read_text()
    assert not re.search(r"PRIVATE KEY-----(\\n|\s)*[A-Za-z0-9+/]{20}", text)
    assert not re.search(r"(?i)(password|passwd|secret|token|api_key)\w*\s*[:=]\s*['\"]?[A-Za-z0-9+/]{6}", text)
    assert not any(document.get("kind") == "Secret" for document in yaml_documents(path))


def yaml_documents(path):
    if path.suffix != ".yaml":
        return []
    return [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
