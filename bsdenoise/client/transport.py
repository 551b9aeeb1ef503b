"""What a protocol has to offer: `bsdenoise.client.rest` and `bsdenoise.client.rpc` do."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Transport(Protocol):
    """One model on one server, each call one request.

    Attributes:
        sends_files: Whether integer images are better sent as files than as numbers.
    """

    sends_files: bool

    def most_values(self, pictures: int) -> int:
        """Most pixel values of a request that is answered by so many pictures."""

    def most_file_bytes(self) -> int:
        """Most bytes of an image file."""

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray], seconds: float) -> dict[str, np.ndarray]:
        """Call a signature once.

        Args:
            signature: Its name.
            inputs: An array for each of its inputs.
            seconds: How long an answer is waited for.
        """

    def states(self, seconds: float) -> list[str]:
        """Ask for the states of the model's versions."""

    def close(self) -> None:
        """Close the connections."""
