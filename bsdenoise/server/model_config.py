"""What is served: from a folder of versions and labels, or from a ModelServerConfig as TensorFlow-Serving reads it."""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from bsdenoise.server.versions import ALL, LATEST, SPECIFIC, ModelSettings

SAVED_MODEL = "saved_model.pb"  # what makes a folder a SavedModel
PLATFORM = "tensorflow"


def parse_labels(texts: Sequence[str]) -> dict[str, int]:
    """Read labels such as "stable=1".

    Raises:
        ValueError: If one is no label with a version, or comes twice.
    """
    labels: dict[str, int] = {}
    for text in texts:
        label, _, version = text.partition("=")
        if not label or not (version.isascii() and version.isdigit()):
            raise ValueError(f"Labels are written LABEL=VERSION, such as stable=1. Received: {text!r}.")
        if label in labels:
            raise ValueError(f"Each label stands for one version. Received: {label!r} twice.")
        labels[label] = int(version)
    return labels


def from_folder(folder: Path, name: str, labels: dict[str, int]) -> ModelSettings:
    """Serve the newest version in a folder, or those that have labels.

    Args:
        folder: The folder of versions.
        name: The model's name.
        labels: Versions by their labels; if there are some, these versions are served and no others.

    Raises:
        ValueError: If there is nothing that can be served.
    """
    if not name or "/" in name or ":" in name:
        raise ValueError(f"--name must be a name without / and :, because it stands in URLs. Received: {name!r}.")
    versions = frozenset(labels.values())
    settings = ModelSettings(name, folder.absolute(), SPECIFIC if versions else LATEST, 1, versions, labels)
    _check(settings)
    return settings


def from_file(path: Path) -> list[ModelSettings]:
    """Read a ModelServerConfig, a text of protocol buffers.

    Relative folders in it are taken from the working directory, as TensorFlow-Serving does.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is none, or something that it names cannot be served.
    """
    try:
        config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a ModelServerConfig: {error}") from error
    if not config.model_config_list.config:
        raise ValueError(f"{path}: names no model. Expected model_config_list {{ config {{ name: … base_path: … }} }}.")
    settings = [_model(path, model) for model in config.model_config_list.config]
    names = [model.name for model in settings]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: names the model {twice[0]!r} twice.")
    for model in settings:
        _check(model)
    return settings


def to_text(models: Sequence[ModelSettings]) -> str:
    """Write a ModelServerConfig."""
    config = model_server_config_pb2.ModelServerConfig()
    for model in models:
        entry = config.model_config_list.config.add(
            name=model.name, base_path=str(model.base_path), model_platform=PLATFORM
        )
        policy = entry.model_version_policy
        if model.policy == SPECIFIC:
            policy.specific.versions.extend(sorted(model.versions))
        elif model.policy == ALL:
            policy.all.SetInParent()
        else:
            policy.latest.num_versions = model.num_versions
        entry.version_labels.update(model.labels)
    return text_format.MessageToString(config)


def _model(path: Path, entry: model_server_config_pb2.ModelConfig) -> ModelSettings:
    if not entry.name or not entry.base_path:
        raise ValueError(f"{path}: every model needs a name and a base_path. Received: {entry.name!r}.")
    if entry.model_platform not in ("", PLATFORM):
        raise ValueError(
            f"{path}: {entry.name}: model_platform must be {PLATFORM!r}. Received: {entry.model_platform!r}."
        )
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice") or LATEST
    if kind == SPECIFIC and not policy.specific.versions:
        raise ValueError(f"{path}: {entry.name}: the policy `specific` names no version.")
    return ModelSettings(
        entry.name,
        Path(entry.base_path).absolute(),
        kind,
        max(1, policy.latest.num_versions),
        frozenset(policy.specific.versions),
        dict(entry.version_labels),
    )


def _check(model: ModelSettings) -> None:
    """Refuse what cannot be served, and say what should have been named."""
    folder = model.base_path
    if folder.suffix == ".keras":
        raise ValueError(f"{folder}: is a model of Keras. Export it: bsdenoise export {folder} --out DIR")
    if not folder.exists():
        raise ValueError(f"{folder}: does not exist. Expected a folder of versions, as bsdenoise export writes it.")
    if not folder.is_dir():
        raise ValueError(f"{folder}: is a file. Expected a folder of versions, as bsdenoise export writes it.")
    if (folder / SAVED_MODEL).exists():
        raise ValueError(f"{folder}: is itself a version. Expected the folder that holds it: {folder.parent}")
    if model.wanted():
        return
    if (folder / "denoiser.keras").exists():
        exported = f" It has been exported to {folder / 'export'}." if (folder / "export").is_dir() else ""
        raise ValueError(f"{folder}: is a run folder. Export it: bsdenoise export {folder} --out DIR.{exported}")
    which = f"the versions {sorted(model.versions)}" if model.policy == SPECIFIC else "a version"
    raise ValueError(f"{folder}: holds no folder of {which}. Expected sub-folders with plain numbers as names.")
