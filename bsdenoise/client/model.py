"""A served model: checked batches in, arrays out, in as many requests as its limits ask for."""

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from bsdenoise.client import files, request_plan
from bsdenoise.client.address import Address
from bsdenoise.client.description import NOISE, Described
from bsdenoise.client.errors import ClientError, RefusedError
from bsdenoise.client.retries import Patience
from bsdenoise.client.transport import Transport
from bsdenoise.likelihood.posterior import SERVED_WITHHELD, Posterior, estimate_psnr
from bsdenoise.noise.base import SIGMA

FILE_TYPES = (np.uint8, np.uint16)  # what PNG holds
DESCRIBE_IS_MISSING = re.compile('"describe" not found')  # in TensorFlow-Serving's words
MAPS = ("denoised", "mean", "std")


class ServedModel:
    """Calls the signatures of one model.

    Args:
        address: Where the model is served.
        transport: How it is spoken to.
        patience: How long and how often.
    """

    def __init__(self, address: Address, transport: Transport, patience: Patience):
        self.address = address
        self.transport = transport
        self._patience = patience
        self._lock = threading.Lock()
        self._described: Described | None = None

    @property
    def described(self) -> Described:
        """What the model says of itself; asked for once.

        Raises:
            ClientError: If the server does not answer, or the model does not describe itself.
        """
        with self._lock:
            if self._described is None:
                self._described = self._describe()
            return self._described

    def stabilized(self) -> "ServedModel":
        """Return the same model as it is called for noise that grows with the signal."""
        other = ServedModel(self.address, self.transport, self._patience)
        other._described = self.described.stabilized()
        return other

    def denoise(self, batch: np.ndarray, pixels: np.ndarray, theta: np.ndarray | None) -> np.ndarray:
        """Denoise a batch.

        Args:
            batch: (B, H, W, C), of the type that it came in.
            pixels: The same as float32, scaled.
            theta: Noise parameters (B, P), `None` for the model's own, or if it uses none.

        Returns:
            float32 (B, H, W, C).
        """
        if self.transport.sends_files and batch.dtype in FILE_TYPES and "encoded" in self.described.signatures:
            planned = [part for index in range(len(batch)) for part in self._file_parts(batch, index)]
            sent, ask = batch, self._denoise_as_files
        else:
            planned = self._parts(batch.shape, pictures=1)
            sent, ask = pixels, self._denoise_as_pixels
        if theta is None and planned[0].is_tile and self.described.method.has_posterior:
            theta = self.own_noise(pixels)  # one for all tiles; of whole images it is left to the model
        return self._joined(planned, sent, theta, MAPS[:1], ask)[0]

    def posterior(self, pixels: np.ndarray, theta: np.ndarray | None, counts: np.ndarray | None = None) -> Posterior:
        """Denoise a batch with all that is known of it; args as for `denoise`, results with a batch axis.

        `counts` (B, H, W, C) tells which pixels hold measurements; `None` for all.
        """
        own = self.own_noise(pixels) if theta is None else theta
        psnr = np.empty(len(pixels), np.float32)
        noise = self.described.noise

        def ask(images: np.ndarray, theta: np.ndarray | None, which: slice) -> list[np.ndarray]:
            answer = self._predict("posterior", image=images, **self.described.named(theta))
            served = answer["estimated_psnr"]
            psnr[which] = np.where(served == SERVED_WITHHELD, np.nan, served)
            return [answer[name] for name in MAPS]

        planned = self._parts(pixels.shape, pictures=len(MAPS))
        denoised, mean, std = self._joined(planned, pixels, own, MAPS, ask)
        if planned[0].is_tile or counts is not None:
            if noise.takes_sigma:
                offset, scale = self.described.offset, self.described.scale
                its_denoised, its_noisy, its_mean = ((array - offset) / scale for array in (denoised, pixels, mean))
                variance = np.square(own.astype(np.float64) / scale)[:, np.newaxis, np.newaxis]
                psnr = estimate_psnr(its_denoised, its_noisy, its_mean, std / scale, variance, counts)
            else:
                psnr[:] = np.nan  # how the variance follows from other parameters, only the server knows
        return Posterior(denoised, mean, std, psnr, own[:, 0] if noise.takes_sigma else None, own)

    def own_noise(self, pixels: np.ndarray) -> np.ndarray:
        """Return the model's own noise of each image, float32 (B, P); of images too large, from their middle."""
        noise, offset, scale = self.described.noise, self.described.offset, self.described.scale
        if noise.is_known:
            told = zip(noise.parameters, noise.least, strict=True)
            return np.tile(
                np.array([one.restored(value, offset, scale) for one, value in told], np.float32), (len(pixels), 1)
            )
        _, height, width, _ = pixels.shape
        crop = request_plan.centre(height, width, self._most_pixels(pictures=1))
        name = SIGMA if noise.takes_sigma else NOISE
        found = [self._ask(f"own_{name}", name, image=image[None][:, *crop]) for image in pixels]
        return np.concatenate(found).reshape(len(pixels), -1)

    def denoise_file(self, data: bytes, theta: np.ndarray | None) -> bytes:
        """Denoise the bytes of one PNG or JPEG file into those of a PNG file; `theta` is (1, P) or `None`."""
        noise = self.described.named(theta)
        signature = "_".join(["encoded_with", *noise]) if noise else "encoded"
        return self._ask(signature, "denoised_bytes", image_bytes=_objects(data), **noise)[0]

    def _describe(self) -> Described:
        try:
            answer = self._ask("describe", "description", format=_objects(b"json"))
        except ClientError as error:
            if DESCRIBE_IS_MISSING.search(str(error)):
                raise RefusedError(f"{error}; export it again, models that describe themselves are needed") from error
            raise
        try:
            return Described.parse(bytes(answer[0]).decode())
        except (ValueError, TypeError, IndexError) as error:
            raise RefusedError(f"{self.address}: {error}") from error

    def _predict(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        return self._patience.ask(lambda seconds: self.transport.predict(signature, inputs, seconds))

    def _ask(self, signature: str, output: str, **inputs: Any) -> np.ndarray:
        """Call a signature of one output, which REST does not name."""
        answer = self._predict(signature, **inputs)
        found = answer.get(output, answer.get(""))
        if found is None:
            raise ClientError(f"{self.address}: the answer of {signature!r} lacks {output!r}.")
        return found

    def _denoise_as_pixels(self, images: np.ndarray, theta: np.ndarray | None, _: slice) -> list[np.ndarray]:
        noise = self.described.named(theta)
        signature = "_".join(["with", *noise]) if noise else "serving_default"
        return [self._ask(signature, "denoised", image=images, **noise)]

    def _denoise_as_files(self, images: np.ndarray, theta: np.ndarray | None, _: slice) -> list[np.ndarray]:
        (image,) = images
        return [files.unit_pixels(self.denoise_file(files.png(image), theta)).reshape(images.shape)]

    def _most_pixels(self, pictures: int) -> int:
        """Most pixels of a request for as many pictures."""
        return min(self.described.max_pixels, self.transport.most_values(pictures) // self.described.channels)

    def _parts(self, shape: tuple[int, ...], pictures: int) -> list[request_plan.Part]:
        return request_plan.plan(shape, self._most_pixels(pictures), *self.described.tiles)

    def _file_parts(self, batch: np.ndarray, index: int) -> list[request_plan.Part]:
        """Plan one image of a batch: a file of it is about as large as its pixels, as noise cannot be compressed."""
        bytes_per_pixel = self.described.channels * batch.dtype.itemsize
        most = min(self.described.max_pixels, self.transport.most_file_bytes() // bytes_per_pixel)
        planned = request_plan.plan((1, *batch.shape[1:]), most, *self.described.tiles)
        return [request_plan.Part(slice(index, index + 1), part.tile, part.is_tile) for part in planned]

    def _joined(
        self,
        planned: list[request_plan.Part],
        batch: np.ndarray,
        theta: np.ndarray | None,
        names: tuple[str, ...],
        ask: Callable[[np.ndarray, Any, slice], list[np.ndarray]],
    ) -> list[np.ndarray]:
        """Send the parts of a batch one after the other, and join the pictures of the answers."""
        results = [np.empty(batch.shape, np.float32) for _ in names]
        for part in planned:
            sent = batch[part.images, *part.tile.window]
            answers = ask(sent, None if theta is None else theta[part.images], part.images)
            for name, result, answer in zip(names, results, answers, strict=True):
                if answer.shape != sent.shape:
                    raise ClientError(
                        f"{self.address}: {name} of shape {sent.shape} is expected. Received: shape={answer.shape}."
                    )
                result[part.images, *part.tile.target] = answer[:, *part.tile.inner]
        return results


def _objects(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array
