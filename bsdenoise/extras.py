"""Packages that not every use needs: which command needs which, and one line where they are missing."""

import importlib.util

# What needs packages of an extra, the extra of setup.cfg, and modules of those packages.
NEEDED = {
    "bsdenoise serve": (
        "serve",
        ("grpc_health", "httptools", "prometheus_client", "rapidjson", "starlette", "uvicorn"),
    ),
    "bsdenoise guard": ("serve", ("httptools", "rapidjson", "starlette", "uvicorn")),
    "bsdenoise app": ("app", ("fastapi", "gradio", "starlette", "uvicorn")),
    "bsdenoise evaluate": ("evaluate", ("skimage",)),
    "bsdenoise figure": ("evaluate", ("skimage",)),
    "bsdenoise inspect --plot": ("inspect", ("matplotlib",)),
    "--methods bm3d": ("bm3d", ("bm3d",)),
}
_LICENCES = {"bm3d": " (its licence allows non-commercial use only)"}


def check(what: str) -> None:
    """Refuse what needs packages that are not installed, before anything else is loaded.

    Args:
        what: A key of `NEEDED`.

    Raises:
        ValueError: If one is missing; the message says how all of them are installed.
    """
    extra, modules = NEEDED[what]
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise ValueError(
            f"{what} needs the packages of an extra: pip install 'bsdenoise[{extra}]'{_LICENCES.get(extra, '')}"
        )
