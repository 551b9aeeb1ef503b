"""How a denoiser computes images of any size in the memory that there is: at once, in stages, in blocks."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from bsdenoise import network as networks
from bsdenoise import progress
from bsdenoise.inference import exact_chunks, memory, self_ensemble, tiling

# Smaller batches are computed op by op, which needs no tracing of a second or more; but a functional model that runs
# so takes several times as long, and keeps the results of all layers. (By size, not by turn: the same image has the
# same result to the bit, whatever came before.)
MAX_EAGER_PIXELS = 2**14
# Of what is free a denoiser uses one half, and never more than this.
MAX_MEMORY = 2**34
MAX_PASS_PIXELS = 2**19  # of a network that can be cut into stages: these take an eighth longer, and far less memory
# Bytes per pixel at the peak of one pass, in units of the greatest number of maps that a layer has and of their size.
PASS_FACTOR = 4.0
# In stages, and beside those of a chunk, the bytes of so many rows of a block, in these units: for each row of a chunk,
# and for each pixel of the pooling grid, as the deepest level looks twelve of its rows ahead. And float32 images of the
# block: the noisy one, its three moments, and these once more in the result of all blocks.
BAND_FACTOR, AHEAD_FACTOR = 0.5, 2.0
BLOCK_IMAGES, FLOAT32_BYTES = 7, 4
CHUNK_SHARE = 3  # a chunk takes at most a third of the memory
MAX_CHUNK_PIXELS = 2**18  # half of what is computed in one pass; larger ones save little
MIN_CHUNK_PIXELS = 2**14


class Inference:
    """Computes the moments of whole images, all in the units of the network.

    A plain object, so that Keras does not take what it compiles for layers of the denoiser.

    Args:
        denoiser: The `Denoiser`.
        network: Its network, as a `DenoisingNetwork`.
    """

    def __init__(self, denoiser, network):
        self.network = network
        self._denoiser = denoiser
        self._levels = network.levels()
        self._known = functools.cache(lambda turns: Compiled(functools.partial(denoiser.shown_moments, turns=turns)))
        self._unknown = Compiled(denoiser.solved_flat)
        self._stages = functools.cache(
            lambda turns: exact_chunks.Stages(self._levels, Compiled, denoiser.finished_mean, turns)
        )

    def moments(self, batch, theta, tile=None, overlap=None, tta=1) -> tuple[list[np.ndarray], np.ndarray | None]:
        """Compute the moments of images, as arrays (B, H, W, C): all at once if they fit, or image by image.

        Args:
            batch: Images (B, H, W, C), float32.
            theta: Noise parameters, (B, P); `None` for the model's own.
            tile: As for `Denoiser.denoise`, like the two that follow.
            overlap: Likewise.
            tta: Likewise.

        Returns:
            The moments, and the noise parameters of each image, (B, P), `None` if none are used.
        """
        number, height, width = batch.shape[:3]
        denoiser = self._denoiser
        denoiser.check_blindness()
        fits = tile is None and self._fits(number, height, width)
        if theta is None and fits and tta == 1 and denoiser.estimates_noise:
            with progress.part(number * height * width):
                *moments, theta = self._in_one_pass(self._unknown, batch)
                return moments, theta
        theta, fit = self._theta_and_fit(batch, theta)
        moments = self._of_shown(*_shown(denoiser, batch, theta, fit), fits, tile, overlap, tta)
        if fit is not None:
            moments = list(fit.undone(moments))
        return moments, theta if denoiser.has_posterior else None

    def as_shown(self, batch, theta=None) -> tuple[np.ndarray, np.ndarray, Any]:
        """Return images as the network is shown them, their noise parameters there, and the fit of their intensities.

        Args as for `moments`. The fit is `None` if they are shown as they are.
        """
        theta, fit = self._theta_and_fit(batch, theta)
        return *_shown(self._denoiser, batch, theta, fit), fit

    def _theta_and_fit(self, batch, theta):
        """Return the noise parameters of images, (B, P), and how these are shown to the network, if not as they are."""
        if not self._denoiser.has_posterior:
            return np.zeros((len(batch), self._denoiser.noise.size), "float32"), None
        theta = self.own_theta(batch) if theta is None else theta
        return theta, self._fit(batch, theta)

    def own_theta(self, batch) -> np.ndarray:
        """Return the model's own noise parameters, (B, P); of each image by itself, as an estimate takes memory."""
        images = (batch[index : index + 1] for index in range(len(batch)))
        return np.concatenate([ops.convert_to_numpy(self._denoiser.solved_theta(image)) for image in images])

    def windows(
        self, read: Callable, shape, middle, theta=None, tile=None, overlap=None, tta=1
    ) -> Iterator[tuple[tuple[slice, slice], list[np.ndarray]]]:
        """Compute the moments of images block by block.

        Args:
            read: Function from rows and columns, slices, to pixels of all images, (B, h, w, C), float32.
            shape: (B, H, W, C).
            middle: Rows and columns, slices, from which the noise and the range of intensities are found.
            theta: Noise parameters, (B, P); `None` for the model's own.
            tile: As for `Denoiser.denoise`, like the two that follow.
            overlap: Likewise.
            tta: Likewise.

        Yields:
            Rows and columns, and the moments there, (B, h, w, C); bands of blocks from top to bottom.
        """
        fit = None
        denoiser = self._denoiser
        denoiser.check_blindness()
        is_estimated = theta is None and denoiser.estimates_noise
        if theta is None:
            theta = np.tile(np.array(denoiser.noise.least, np.float32), (shape[0], 1))
        if denoiser.has_posterior and (is_estimated or not denoiser.noise.is_trained(theta)):
            part = read(*middle)
            theta = self.own_theta(part) if is_estimated else theta
            fit = self._fit(part, theta)
        if fit is None:
            yield from self._windows(read, shape, theta, tile, overlap, tta)
            return

        def shown(rows, columns):
            return fit.applied(read(rows, columns))

        shown_theta = denoiser.fitted_theta(theta, fit, np)
        for target, moments in self._windows(shown, shape, shown_theta, tile, overlap, tta):
            yield target, list(fit.undone(moments))

    def _fit(self, batch, theta):
        """Fit the intensities of images, if any has other noise than the network was trained for."""
        noise = self._denoiser.noise
        fit = None if noise.is_trained(theta) else noise.fit(batch, theta)
        return None if fit is None else type(fit)(*map(ops.convert_to_numpy, fit))

    def _of_shown(self, batch, theta, fits, tile, overlap, tta) -> list[np.ndarray]:
        """Compute the moments of images as they are shown, with known noise."""
        number, height, width = batch.shape[:3]
        if fits:
            copies = self_ensemble.Copies.of(tta, self.network)
            with progress.part(number * height * width, of=len(copies.changes)):
                return self_ensemble.average(
                    lambda images, _: self._with_theta(images, theta, copies.turns), batch, copies.changes
                )
        results: list[np.ndarray] = []
        for index in range(number):
            one = slice(index, index + 1)
            windows = self._windows(
                lambda *window, one=one: batch[one, *window], (1, *batch.shape[1:]), theta[one], tile, overlap, tta
            )
            for target, parts in windows:
                results = results or [np.empty(batch.shape, "float32") for _ in parts]
                for result, part in zip(results, parts, strict=True):
                    result[one, *target] = part
        return results

    def _windows(self, read, shape, theta, tile, overlap, tta):
        """Compute the moments of images as they are shown block by block."""
        _, height, width, _ = shape
        copies = self_ensemble.Copies.of(tta, self.network)
        for piece in self._plan(height, width, tile, overlap, copies.are_mirrored):
            blocks = read(*piece.window)
            rows, columns = piece.target
            found = []
            for index in range(len(blocks)):
                one = slice(index, index + 1)
                compute = functools.partial(self._block, theta=theta[one], inner=piece.inner, turns=copies.turns)
                amount = (rows.stop - rows.start) * (columns.stop - columns.start)
                with progress.part(amount, of=len(copies.changes)):
                    found.append(self_ensemble.average(compute, blocks[one], copies.changes))
            joined = found[0] if len(found) == 1 else [np.concatenate(parts) for parts in zip(*found, strict=True)]
            yield piece.target, joined

    def _plan(self, height, width, tile, overlap, are_mirrored=False) -> Iterator[tiling.Tile]:
        """Cut an image into blocks, of which mirror images are computed too or not."""
        if tile is None and overlap is None and self._fits(1, height, width):
            whole = slice(0, height), slice(0, width)
            return iter([tiling.Tile(whole, whole, whole)])
        grid, context = self.network.grid, self.network.context
        if tile is None and overlap is None:
            overlap = context + grid if are_mirrored else context
            most, extra = self._block_pixels() if self._is_cut else (self._most_pixels(), 0)
            tile = tiling.fit(height, width, most, overlap, grid, extra, are_mirrored)
        else:
            tile, overlap = tiling.choose(grid, tile, overlap, context)
        pieces = tiling.plan(height, width, tile, overlap, grid)
        return (piece.for_mirroring(height, width, grid) for piece in pieces) if are_mirrored else pieces

    def _block(self, image, change, theta, inner, turns) -> list[np.ndarray]:
        """Compute the moments of a block, (1, H, W, C), in one pass if it fits.

        Args:
            image: The block, changed.
            change: How, a `self_ensemble.Change`.
            theta: Noise parameters, (1, P).
            inner: Rows and columns of the block as it was, of which the moments are needed.
            turns: By how many quarter turns it is turned behind the branches.
        """
        _, height, width, _ = image.shape
        inner = change.of_window(inner, (height, width))
        if not self._is_cut or height * width <= self._most_pixels():
            moments = self._with_theta(image, theta, turns)
        else:
            moments = self._stages(turns).compute(image, theta, self._chunk_pixels(), inner)
        return [moment[:, *inner] for moment in moments]

    def _with_theta(self, batch, theta, turns) -> list[np.ndarray]:
        return self._in_one_pass(self._known(turns), batch, theta)

    @staticmethod
    def _in_one_pass(compiled, batch, *theta) -> list[np.ndarray]:
        if batch.size // batch.shape[-1] <= MAX_EAGER_PIXELS:
            moments = [ops.convert_to_numpy(moment) for moment in compiled.function(batch, *theta)]
        else:
            moments = compiled(batch, *theta)
        progress.advance(1)
        return moments

    def _fits(self, number: int, height: int, width: int) -> bool:
        """Tell whether images can be computed in one pass, all together.

        The network's own grid is asked for only where it matters: it may have to be measured.
        """
        most = self._most_pixels()
        if number * tiling.padded_pixels(height, width, networks.MAX_GRID) <= most:
            return True
        # Not even unpadded.
        if number * height * width > most:
            return False
        return number * tiling.padded_pixels(height, width, self.network.grid) <= most

    def _most_pixels(self) -> int:
        """Count the pixels that are computed in one pass at most."""
        fitting = int(self._memory() / (PASS_FACTOR * self.network.map_bytes))
        return min(MAX_PASS_PIXELS if self._is_cut else tiling.MAX_UNTILED_PIXELS, max(fitting, MIN_CHUNK_PIXELS))

    def _chunk_pixels(self) -> int:
        """Count the pixels of the chunks that stages compute in full resolution."""
        fitting = int(self._memory() / CHUNK_SHARE / (PASS_FACTOR * self.network.map_bytes))
        return min(MAX_CHUNK_PIXELS, max(fitting, MIN_CHUNK_PIXELS))

    def _block_pixels(self) -> tuple[int, int]:
        """Count the pixels that a block may have, and the rows that it has beside its own: those of maps are kept."""
        image_bytes = BLOCK_IMAGES * FLOAT32_BYTES * self.network.channels
        rows = BAND_FACTOR * self._chunk_pixels() ** 0.5 + AHEAD_FACTOR * self.network.grid
        left = (1 - 1 / CHUNK_SHARE) * self._memory()
        return int(left / image_bytes), int(rows * self.network.map_bytes / image_bytes)

    @staticmethod
    def _memory() -> float:
        return min(memory.available_bytes() / 2, MAX_MEMORY)

    @property
    def _is_cut(self) -> bool:
        return self._levels is not None


def _shown(denoiser, batch, theta, fit) -> tuple[np.ndarray, np.ndarray]:
    return (batch, theta) if fit is None else (fit.applied(batch), denoiser.fitted_theta(theta, fit, np))


class Compiled:
    """A function of tensors as one of arrays, compiled the way that Keras does it on each backend.

    Args:
        function: From tensors to a tensor or a tuple of them; kept as `function`.
    """

    def __init__(self, function: Callable):
        self.function = function

        class Wrapped(keras.Model):
            def call(self, inputs):
                return function(*inputs)

        # Without casting: what is given in half precision stays so.
        self._model = Wrapped(dtype="float32", autocast=False)
        # XLA would be compiled anew for each size.
        self._model.compile(jit_compile=False)

    def __call__(self, *arrays):
        """Return the results as arrays."""
        return self._model.predict_on_batch(arrays)
