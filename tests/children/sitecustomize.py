"""What each Python process that a test starts does first: `conftest.py` puts this folder on its path.

Importing TensorFlow takes such a process 4.7 s of a core, 2.1 s of them for nothing that it is tested for:

* Python looks for garbage among millions of objects that all stay, and once more at the end.
* Keras and TensorFlow import pandas and JAX where they happen to be installed, as they are for tests.
"""

import atexit
import gc
import os
import sys

gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)

NOT_NEEDED = {"pandas", "jax"}


class Absent:
    """Has Keras and TensorFlow find, while they are imported, that some packages are not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Refuses a package to them, and leaves all else to others."""
        if name in NOT_NEEDED and any(map(is_being_imported, ("keras", "tensorflow"))):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def is_being_imported(name):
    """Tells whether the import of a module has begun and not ended."""
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)


if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    sys.meta_path.insert(0, Absent)

if os.environ.get("BSDENOISE_TESTS_WITHOUT_EXPORT"):
    import wrapt

    @wrapt.when_imported("bsdenoise.training.loop")
    def _without_export(module):
        """A training ends without its SavedModel."""
        module._export = lambda folder: None
