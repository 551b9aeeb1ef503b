"""What several test modules share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Each worker has a core of its own; what tests compute is too small to be shared among threads.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import copy
import gc
import hashlib
import pickle
from pathlib import Path

import pytest
import wrapt

# Processes that tests start begin with `children/sitecustomize.py`, which halves what importing TensorFlow costs.
CHILDREN = str(Path(__file__).with_name("children"))
paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if CHILDREN not in paths:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [CHILDREN, *paths]))

# Tracing makes very many objects that stay: looking for garbage after every 700 of them takes a tenth of the time.
gc.set_threshold(50_000, 20, 100)

# Modules that take longest: first, so that the last worker is not left alone with one of them.
LONGEST = (
    "test_distributed",
    "test_server_survives",
    "test_training",
    "test_export",
    "test_presets",
    "test_graph_tiles",
    "test_fit_any_backend",
    "test_inference",
    "test_training_gradients",
    "test_graph_signatures",
    "test_training_initial",
    "test_denoiser",
    "test_training_units",
    "test_noise_models",
    "test_selection",
    "test_detector_noise",
)


# Modules whose trainings are a few steps each, which are run op by op: to trace them would take most of the time. Tests
# marked `graph`, and all other modules but for tests marked `op_by_op`, run what is compiled.
OP_BY_OP = (
    "test_adaptation",
    "test_checkpoints",
    "test_selection",
    "test_training",
    "test_training_blind_spot",
    "test_training_gradients",
    "test_training_initial",
    "test_training_methods",
    "test_training_own_network",
    "test_training_step",
    "test_training_units",
    "test_training_unknown_noise",
)


@pytest.fixture(scope="module", autouse=True)
def _op_by_op(request):
    """Runs what is shared by the tests of a module as they run themselves."""
    if request.path.stem not in OP_BY_OP:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def _as_marked(request):
    """Runs a test in the other way than its module, where it asks for it."""
    is_usual = request.path.stem in OP_BY_OP
    if request.node.get_closest_marker("graph" if is_usual else "op_by_op") is None:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(not is_usual)
    yield
    tf.config.run_functions_eagerly(is_usual)


@wrapt.when_imported("bsdenoise.export.saved_model")
def _without_trial(module):
    """Exports are not tried before they are published, which takes seconds, unless `test_export.py` asks for it."""
    module.tried = module._try

    def only_for_warm_up(folder, directory, description, text, sizes, report):
        if sizes:
            module.tried(folder, directory, description, text, sizes, report)

    module._try = only_for_warm_up


@wrapt.when_imported("bsdenoise.data.survey")
def _remembered(module):
    """Many tests open the same images: what is estimated of them before a training is computed once."""
    known = {}

    def once(function):
        def remembered(*arguments):
            key = function.__name__, hashlib.sha256(pickle.dumps(arguments)).digest()
            if key not in known:
                known[key] = function(*arguments)
            return copy.deepcopy(known[key])

        return remembered

    module._estimate, module._growth = once(module._estimate), once(module._growth)


def pytest_collection_finish():
    """What was imported stays: neither tests nor the end of the process look for garbage among it."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def compiled(monkeypatch):
    """Has small images computed by a compiled function, which takes a tenth of the time where a test has many."""
    monkeypatch.setattr("bsdenoise.inference.engine.MAX_EAGER_PIXELS", 0)


@pytest.fixture(scope="session")
def tiny_denoiser_path(tmp_path_factory):
    """A function from a number of channels to the `.keras` file of a small untrained denoiser for σ = 25 / 255.

    Weights come from a fixed seed. With `high` above 25 / 255 the noise is a range and σ is estimated.
    """
    folder = tmp_path_factory.mktemp("models")

    def make(channels, high=25 / 255):
        path = folder / f"{channels}-{high:.4f}.keras"
        if not path.exists():
            import keras

            from bsdenoise.denoiser import Denoiser
            from bsdenoise.network import blind_spot_network
            from bsdenoise.noise import GaussianNoise

            keras.utils.set_random_seed(channels)
            network = blind_spot_network(channels=channels, width=4, depth=2)
            Denoiser(network, GaussianNoise(25 / 255, high)).save(path)
        return path

    return make
