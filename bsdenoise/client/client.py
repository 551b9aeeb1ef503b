"""The client: a served model with the face of a `Denoiser`."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bsdenoise.client import files
from bsdenoise.client.description import STABILIZED, ServedMethod, ServedNoise
from bsdenoise.client.errors import ClientError, DeadlineError
from bsdenoise.client.model import ServedModel
from bsdenoise.client.retries import FIRST_PAUSE
from bsdenoise.images import missing
from bsdenoise.likelihood.posterior import Posterior
from bsdenoise.parallel import in_order

PING_SECONDS = 5.0  # within which a server that is ready says so


@dataclass(frozen=True)
class Outcome:
    """What became of one image of many.

    Attributes:
        index: Its number, from 0.
        denoised: The denoised image, `None` after an error.
        error: Why there is none: a `ClientError`, or the `ValueError` of an image that cannot be sent.
    """

    index: int
    denoised: np.ndarray | None
    error: Exception | None = None


class Client:
    """A served model. It is made by `connect`; all of it may be used by many threads at once.

    Images and σ are those of `Denoiser.denoise`, and so are the errors that can be known before anything is sent; all
    others are `ClientError`s.

    Args:
        model: How its signatures are called.
    """

    def __init__(self, model: ServedModel):
        self._model = model

    def __repr__(self) -> str:
        return f"<bsdenoise client of {self._model.address}>"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._model.transport.close()

    # --- what the model is ------------------------------------------------------------------------------------------

    @property
    def description(self) -> dict[str, Any]:
        """What the model says of itself, as in `serving.json`; asked for once, when it is first needed.

        Raises:
            ClientError: If the server does not answer, or the model does not describe itself.
        """
        return self._model.described.json

    @property
    def channels(self) -> int:
        """Number of channels of the images that it takes."""
        return self._model.described.channels

    @property
    def noise(self) -> ServedNoise:
        """For which noise it was trained, as the `noise` of a `Denoiser` tells it."""
        return self._model.described.noise

    @property
    def method(self) -> ServedMethod:
        """What it was trained for: `name`, such as "full" or "n2n", and `has_posterior`."""
        return self._model.described.method

    @property
    def has_posterior(self) -> bool:
        """Whether the noise matters, and `posterior` says how sure the result is."""
        return self.method.has_posterior

    @property
    def can_be_stabilized(self) -> bool:
        """Whether the model takes noise that grows with the signal too, as `Denoiser.stabilized` does."""
        return self._model.described.can_be_stabilized

    def stabilized(self) -> "Client":
        """Return a client of the same model for noise that grows with the signal: it takes and gives `noise`.

        It shares the connections. Where no noise is told, both leave it to the server, which finds out by itself.

        Raises:
            ValueError: If the model does not take such noise.
        """
        if not self.can_be_stabilized:
            raise ValueError(
                "Only a model for white noise of a range, exported by a version that knows other noise, takes noise "
                f"that grows with the signal. Received: a model of {self.noise.kind} noise."
            )
        return Client(self._model.stabilized())

    def wait_until_ready(self, deadline: float = 60.0) -> None:
        """Wait until a version of the model is served.

        Args:
            deadline: Seconds to wait at most.

        Raises:
            DeadlineError: If there is none by then; the message says what the server said last.
        """
        end = time.monotonic() + deadline
        while True:
            left = end - time.monotonic()
            try:
                states = self._model.transport.states(min(PING_SECONDS, max(left, FIRST_PAUSE)))
                if "AVAILABLE" in states:
                    return
                said = f"{self._model.address}: its versions are {', '.join(states) or 'none'}"
            except ClientError as error:
                said = str(error)
            if end - time.monotonic() <= FIRST_PAUSE:
                raise DeadlineError(f"{said} (not ready after {deadline:.3g} s)")
            time.sleep(FIRST_PAUSE)

    # --- arrays ------------------------------------------------------------------------------------------------------

    def denoise(self, noisy: Any, sigma: Any = None, noise: Any = None) -> np.ndarray:
        """Denoise an image or a batch of images of any size.

        Over REST, images of 8 or 16 bits with 1 or 3 channels travel as PNG files, and the result is rounded to their
        bits. All else, and all over gRPC, travels as float32 and comes back unrounded.

        What exceeds the limits of the model or the protocol is sent in parts: batches image by image, images in the
        tiles that the model itself would use, with the noise of the whole.

        Args:
            noisy: As for `Denoiser.denoise`. float64 travels as float32, and is refused if that would lose its noise.
            sigma: Noise standard deviation in the units of the scaled image, > 0: a number, or one per image (B,).
                `None` takes the model's own, as `own_sigma` gives it. Models without a posterior do not use it, so that
                it is checked and not sent.
            noise: Noise parameters θ instead, (P,) or one row per image (B, P), as for `Denoiser.denoise`.

        Returns:
            float32 array of the shape of `noisy`.

        Raises:
            ValueError: If the image has the wrong shape, is empty or not finite, or `sigma` or `noise` does not fit.
            ClientError: If the server refuses it, or does not answer.
        """
        noisy, gaps = missing.taken(noisy)
        if gaps is not None and gaps.is_everything:
            return gaps.restored(self._empty(noisy))
        batch, pixels, theta = self._checked(noisy, sigma, noise)
        denoised = self._model.denoise(batch, pixels, theta).reshape(np.shape(noisy))
        return denoised if gaps is None else gaps.restored(denoised)

    def posterior(self, noisy: Any, sigma: Any = None, noise: Any = None) -> Posterior:
        """Denoise, and say how sure it is: a standard deviation per pixel, and an estimate of the PSNR.

        Args and errors as for `denoise`; also a `ValueError` of a model without a posterior.

        All travels as float32, over REST as JSON numbers.

        Returns:
            What `Denoiser.posterior` gives: float32 arrays, and `estimated_psnr` and `sigma`, numbers for one image,
            (B,) for a batch. Where noise is more than a σ, `estimated_psnr` is NaN of images that are sent in parts.
        """
        if not self.has_posterior:
            raise ValueError(f"A model of method {self.method.name!r} has no posterior: it only denoises.")
        if self.noise.kind == STABILIZED:
            raise ValueError("A server tells the posterior of white noise alone: ask a client that is not stabilized.")
        noisy, gaps = missing.taken(noisy)
        shape = np.shape(noisy)
        if gaps is not None and gaps.is_everything:
            empty = self._empty(noisy)
            unknown = np.full(shape[0] if len(shape) == 4 else 1, np.nan, np.float32)
            nothing = np.full((len(unknown), len(self.noise.parameters)), np.nan, np.float32)
            sigma = unknown if self.noise.takes_sigma else None
            nowhere = gaps.without(empty)
            found = Posterior(gaps.restored(empty), nowhere, nowhere, unknown, sigma, nothing)
            return found if len(shape) == 4 else found.of_one()
        batch, pixels, theta = self._checked(noisy, sigma, noise)
        found = self._model.posterior(pixels, theta, None if gaps is None else gaps.counts.reshape(pixels.shape))
        maps = [array.reshape(shape) for array in (found.denoised, found.mean, found.std)]
        if gaps is not None:
            maps = [gaps.restored(maps[0]), *map(gaps.without, maps[1:])]
        found = replace(found, denoised=maps[0], mean=maps[1], std=maps[2])
        return found if len(shape) == batch.ndim else found.of_one()

    def own_noise(self, image: Any) -> np.ndarray:
        """Return the model's own noise parameters of an image: the known ones, or its estimate.

        Of an image that exceeds the limits, the largest part in its middle that fits is looked at.

        Args:
            image: As for `denoise`.

        Returns:
            float32 (P,), or for a batch (B, P), in the units of the pixels.

        Raises:
            ValueError: As `denoise`; also if the model has no posterior, because it is not asked for noise then.
            ClientError: As `denoise`.
        """
        if not self.has_posterior:
            raise ValueError(f"A model of method {self.method.name!r} does not use `sigma`: it has none of its own.")
        image, _ = missing.taken(image)  # what stands for gaps has the noise of the rest
        _, pixels, _ = self._checked(image, None, None)
        theta = self._model.own_noise(pixels)
        return theta if np.ndim(image) == 4 else theta[0]

    def own_sigma(self, image: Any) -> Any:
        """Return the model's own σ of an image, as `own_noise` does; args and errors as for it.

        Returns:
            A number, or for a batch float32 (B,), in the units of the pixels.
        """
        self._model.described.check_takes_sigma()
        sigma = self.own_noise(image)[..., 0]
        return sigma if np.ndim(image) == 4 else float(sigma)

    def denoise_many(self, noisy: Iterable[Any], sigma: Any = None, concurrency: int = 4) -> Iterator[Outcome]:
        """Denoise images with several requests in flight; results come in order, one bad image loses no other.

        Args:
            noisy: Images as for `denoise`; at most `2 * concurrency` of them are taken ahead of the results.
            sigma: As for `denoise`, the same for all.
            concurrency: Most images in flight.

        Yields:
            An `Outcome` for each image; its errors stand in it and are not raised.

        Raises:
            ValueError: If `concurrency` is less than 1.
        """
        finished = in_order(lambda image: self.denoise(image, sigma), noisy, concurrency)
        return (_outcome(index, future) for index, (_, future) in enumerate(finished))

    # --- files -------------------------------------------------------------------------------------------------------

    def denoise_bytes(self, data: bytes, sigma: float | None = None) -> bytes:
        """Denoise the content of a PNG or JPEG file.

        Args:
            data: The file; EXIF orientation is ignored.
            sigma: As for `denoise`.

        Returns:
            A PNG file of as many bits.

        Raises:
            ValueError: If it is neither PNG nor JPEG, or `sigma` does not fit.
            ClientError: As `denoise`.
        """
        described = self._model.described
        theta = described.theta_to_send(sigma, None, 1)
        height, width = files.size(data)
        fits = height * width <= described.max_pixels and len(data) <= self._model.transport.most_file_bytes()
        if fits and "encoded" in described.signatures:
            return self._model.denoise_file(data, theta)
        return files.denoise_decoded(self, data, sigma)

    def denoise_file(self, source: str | Path, target: str | Path, sigma: float | None = None) -> None:
        """Denoise an image file into another one of the same bit depth, with its metadata.

        Args:
            source: PNG, JPEG, TIFF or `.npy`, also with several images, which are denoised one by one. A model for one
                channel takes each channel of a file as an image of its own.
            target: The file to write, whole or not at all; its suffix chooses the format.
            sigma: As for `denoise`.

        Raises:
            ValueError: If the file cannot be read, denoised by this model, or written in that format.
            OSError: If it cannot be opened or written.
            ClientError: As `denoise`.
        """
        files.denoise_file(self, source, target, sigma)

    def _empty(self, noisy: np.ndarray) -> np.ndarray:
        """Return a result for images of which nothing was measured, once they are known to be images."""
        self._model.described.accepted.batch(noisy)
        return np.zeros(noisy.shape, np.float32)

    def _checked(self, noisy: Any, sigma: Any, noise: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the batch as it came and as float32, and the noise parameters of each image, (B, P)."""
        described = self._model.described
        batch = described.accepted.batch(noisy)
        pixels = described.accepted.float32(described.accepted.pixels(batch))
        return batch, pixels, described.theta_to_send(sigma, noise, len(batch))


def _outcome(index: int, future: Future[np.ndarray]) -> Outcome:
    error = future.exception()
    if error is None:
        return Outcome(index, future.result())
    if isinstance(error, Exception):
        return Outcome(index, None, error)
    raise error
