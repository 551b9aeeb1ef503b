"""What a `Denoiser` does with images as users have them: arrays of any size, with gaps, and of any noise."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

# Modules, not names of them, as in `bsdenoise.denoiser.model`.
from bsdenoise import adaptation, noise
from bsdenoise.images import missing
from bsdenoise.inference import self_ensemble, tiling, whitening
from bsdenoise.likelihood import sure
from bsdenoise.likelihood.posterior import Posterior, estimate_psnr
from bsdenoise.noise import base, correlated, verdicts

# Where noise of a detector is estimated, its gain is known to five percent, which is 1 dB of an error that is a quarter
# of the noise. Smaller ones are not told.
UNSURE_SHARE = 0.25


class OnArrays(keras.Model):
    """The methods of a `Denoiser` that take arrays; a base class of that alone, with no state of its own."""

    def denoise(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None, adapt=0):
        """Denoise an image or a batch of images of any size; large ones in overlapping tiles.

        Args:
            noisy: (H, W), (H, W, C) or (B, H, W, C), floats in the units of the model. Of models whose pixels are
                fractions of full scale also uint8 and uint16, which are scaled by their type's maximum. Values that
                are NaN or masked (`numpy.ma`) hold no measurement: they come back as they are, and the others are
                denoised as if nothing were known of them.
            sigma: Noise standard deviation in the units of the scaled image, > 0 (25 grey levels of 8 bits are
                25 / 255): a number, or one per image (B,). `None` takes the known one, or estimates it. Methods without
                a posterior do not use it. Beyond the range of the training, intensities are stretched or compressed
                for the network (`bsdenoise.noise.intensity_fit`), and σ is honoured as it is.
            tile: Largest side of a tile in pixels, a multiple of the pooling grid; `None` computes at once what fits
                into half of the free memory, and larger images in the largest tiles that do.
            overlap: Context in pixels that a tile has on every inner side, a multiple of the pooling grid and less than
                half a tile; `None` takes the reach of the network (155 pixels at a depth of 4, 315 at 5), but at most
                160 pixels for the U-Nets of this package, and a quarter of a given tile. From the reach on, with copies
                from the reach and a grid on, the result is that of one pass over the whole.
            tta: Number of copies of the image, mirrored and turned, whose results are averaged: 1, 2, 4 or 8. A network
                of this package with a blind spot takes about 2, 2.3 and 2.8 times as long for the last three of them,
                others as many times as there are copies (`bsdenoise.inference.self_ensemble`). Copies are made of each
                tile where there are tiles. At most 4 where the blind spot is no square.
            noise: Noise parameters θ in the units of the scaled image, (P,) or one row per image (B, P), in the order
                of `noise.parameters`. Of Gaussian noise they are σ alone, of which `sigma` is the short form.
            adapt: Number of steps by which a copy of the network is adapted to these very images before, as `adapt`
                does it; 0 for none. 64 take about as long as denoising six megapixels.

        Returns:
            float32 array of the shape of `noisy`; float64 for float64, whose offset may be too large for float32. A
            masked array if `noisy` is one.

        Raises:
            ValueError: If the image has the wrong type or shape, is empty or holds infinite values, or `sigma`,
                `noise`, `tile` or `overlap` does not fit.
        """
        denoiser = self.adapt(noisy, sigma, noise, steps=adapt) if adapt else self
        return denoiser.denoise_with_noise(noisy, sigma, tile, overlap, tta, noise)[0]

    def denoise_with_noise(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise as `denoise` does, and tell which noise was used: an estimate costs no pass of its own then.

        Args and errors as for `denoise`.

        Returns:
            The denoised images, and their noise parameters, float32 (B, P), in the units of the model, 0 where no
            noise was found; `None` if none are used, or nothing was measured.
        """
        noisy, gaps = missing.taken(noisy)
        if gaps is not None and gaps.is_everything:
            return gaps.restored(self._empty(noisy)), None
        normalized, theta, moments = self._normalized_moments(noisy, sigma, noise, tile, overlap, tta, gaps)
        denoised = self._results(moments[:1], normalized)[0].reshape(np.shape(noisy))
        denoised = denoised if gaps is None else gaps.restored(denoised)
        return denoised, None if theta is None else self._told(theta)

    def posterior(self, noisy, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise, and say how sure it is: a standard deviation per pixel, and an estimate of the PSNR.

        Args as for `denoise`.

        Raises:
            ValueError: As `denoise`; also if the method has no posterior.

        Returns:
            A `Posterior` of arrays as `denoise` gives them; `estimated_psnr` and `sigma` are numbers for one image,
            (B,) for a batch, `noise` is (P,) or (B, P). The PSNR is for a peak of the model's `scale`, of the values
            that were measured; it is NaN where it is withheld, as told by `bsdenoise.likelihood.posterior.WITHHELD`.
            Mean and standard deviation are NaN where nothing was measured.
        """
        if not self.has_posterior:
            raise ValueError(f"A model of method {self.method.name!r} has no posterior: it only denoises.")
        noisy, gaps = missing.taken(noisy)
        shape = np.shape(noisy)
        if gaps is not None and gaps.is_everything:
            empty = self._empty(noisy)
            unknown = np.full(shape[0] if len(shape) == 4 else 1, np.nan, "float32")
            maps = [gaps.restored(empty), gaps.without(empty), gaps.without(empty)]
            return self._as_posterior(maps, unknown, np.full((len(unknown), self.noise.size), np.nan, "float32"))
        normalized, theta, moments = self._normalized_moments(noisy, sigma, noise, tile, overlap, tta, gaps)
        denoised, mean, variance = moments
        counts = None if gaps is None else gaps.counts.reshape(denoised.shape)
        noise_variance = self.noise.variance(mean, theta.astype(np.float64))
        psnr = np.full(len(denoised), np.nan, np.float32)
        if self.noise.has_risk_estimate:
            terms = self.noise.squared_errors(denoised, normalized.pixels, mean, variance, theta)
            least = np.full(len(theta), sure.MIN_SHARE_OF_NOISE)
            if sigma is None and noise is None and terms is not None:
                least[theta[:, 0] > 0] = UNSURE_SHARE
            std = np.sqrt(variance)
            psnr = estimate_psnr(denoised, normalized.pixels, mean, std, noise_variance, counts, terms, least)
            psnr = np.where(self._are_contradicted(normalized.pixels), np.float32(np.nan), psnr)
        maps = [array.reshape(shape) for array in self._results(moments, normalized)]
        if gaps is not None:
            maps = [gaps.restored(maps[0]), *map(gaps.without, maps[1:])]
        return self._as_posterior(maps, psnr, self._told(theta))

    def _are_contradicted(self, images):
        """Tell whether the noise of each of images (B, H, W, C) is clearly none that the model knows."""
        known = {
            noise.GaussianNoise.kind: (verdicts.WHITE,),
            noise.StabilizedNoise.kind: (verdicts.WHITE, verdicts.SIGNAL_DEPENDENT),
        }.get(self.noise.kind)
        if known is None:
            return np.zeros(len(images), bool)
        rows, columns = tiling.middle(images.shape[1], images.shape[2], verdicts.LOOKED_AT)
        looks = noise.StabilizedNoise(self.noise.low, self.noise.high)
        return np.array([kind not in known for kind in verdicts.kinds(images[:, rows, columns], looks)])

    def _as_posterior(self, maps, psnr, theta):
        """Make a `Posterior` of an image or a batch."""
        denoised, mean, std = maps
        sigma = theta[:, 0] if self.noise.takes_sigma else None
        found = Posterior(denoised, mean, std, psnr, sigma, theta)
        return found if np.ndim(denoised) == 4 else found.of_one()

    def noise_std(self, mean, noise):
        """Compute the standard deviation of the noise of pixels, broadcastable to (B, H, W, C).

        Args:
            mean: Clean pixels or their prediction, (B, H, W, C), in the units of the model.
            noise: Noise parameters (B, P), in the same units.
        """
        theta = self._shown(np.asarray(noise, np.float32))
        return np.sqrt(self.noise.variance(self.normalized(np.asarray(mean)), theta)) * np.float32(self.scale)

    def windows(self, read, shape, sigma=None, tile=None, overlap=None, tta=1, noise=None):
        """Denoise an image, or several of one size, that need not fit into memory, block by block.

        Args:
            read: Function that gives the noisy pixels (h, w, C), or (B, h, w, C) of several images, of some rows and
                columns, two slices; in the units of `denoise`, integers included.
            shape: (H, W, C), or (B, H, W, C).
            sigma: As for `denoise`; where it has to be estimated, that is done in the middle of the image.
            tile: As for `denoise`, like those that follow.
            overlap: Likewise.
            tta: Likewise.
            noise: Likewise.

        Yields:
            The rows and columns that are done, two slices, and arrays (h, w, C) or (B, h, w, C) for them: denoised,
            mean and posterior standard deviation, or denoised alone if there is no posterior. Every pixel once, in
            bands from top to bottom.

        Raises:
            ValueError: As `denoise`.
        """
        self_ensemble.check(tta, self.blind_spot)
        *number, height, width, _ = shape
        last = gaps = None
        corner = 0, 0

        def normalized(rows, columns):
            nonlocal last, gaps, corner
            block, gaps = missing.taken(read(rows, columns))
            last, corner = self._normalized(block), (rows.indices(height)[0], columns.indices(width)[0])
            return last.pixels

        def finished(window, moments):
            maps = self._results(moments if number else [moment[0] for moment in moments], last)
            if gaps is None:
                return window, maps
            (rows, columns), (top, left) = window, corner
            inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            its_gaps = gaps.part(*(slice(None) for _ in number), *inner)
            return window, [its_gaps.restored(maps[0]), *map(its_gaps.without, maps[1:])]

        middle = tiling.middle(height, width, tiling.MIDDLE)
        count = number[0] if number else 1
        theta = self._given_theta(sigma, noise, count)
        batch_shape = (count, height, width, self.channels)
        blocks = self._inference.windows(normalized, batch_shape, middle, theta, tile, overlap, tta)
        return (finished(window, moments) for window, moments in blocks)

    def denoise_correlated(self, noisy, noise=None, copies=whitening.COPIES, tile=None, overlap=None, tta=1):
        """Denoise images whose noise neighbouring pixels share, as that of camera files and of averaging detectors.

        What the noise lacks to be white is added before, with both signs, and the results are averaged
        (`bsdenoise.inference.whitening`).

        Args:
            noisy: As for `denoise`.
            noise: A `bsdenoise.noise.CorrelatedNoise` in the units of the scaled image, for all images or one for each;
                `None` measures it, in each image by itself.
            copies: How many copies are denoised and averaged, an even number.
            tile: As for `denoise`.
            overlap: Likewise.
            tta: Likewise, of each copy.

        Returns:
            As `denoise`.

        Raises:
            ValueError: As `denoise`; also if the model does not use noise, `copies` is odd, or the noise cannot be
                measured, as in images of less than 24 pixels on a side.
        """
        noisy, gaps = missing.taken(noisy)
        if gaps is not None and gaps.is_everything:
            return gaps.restored(self._empty(noisy))
        batch = self._accepted.batch(noisy)
        pixels = self._accepted.pixels(batch)
        if gaps is not None:
            pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
        found = self._correlated(pixels, noise)

        def read(rows, columns):
            return pixels[:, rows, columns]

        denoised = np.empty(pixels.shape, pixels.dtype)
        for window, maps in self.windows_correlated(read, pixels.shape, found, copies, tile, overlap, tta):
            denoised[:, *window] = maps[0]
        denoised = denoised.reshape(np.shape(noisy))
        return denoised if gaps is None else gaps.restored(denoised)

    def windows_correlated(self, read, shape, noise, copies=whitening.COPIES, tile=None, overlap=None, tta=1):
        """Denoise images whose noise neighbouring pixels share, block by block, as `windows` does.

        Args:
            read: As for `windows`.
            shape: Likewise.
            noise: As for `denoise_correlated`, but not `None`.
            copies: Likewise.
            tile: As for `denoise`.
            overlap: Likewise.
            tta: Likewise.

        Yields:
            As `windows`. Mean and standard deviation are those with the noise that is added.

        Raises:
            ValueError: As `denoise_correlated`.
        """
        *number, height, width, channels = shape
        count = number[0] if number else 1
        whitened = whitening.Whitening(self._correlated([None] * count, noise), (height, width), copies)
        theta = self._white_theta(whitened)

        def shown(rows, columns):
            block, gaps = missing.taken(read(rows, columns))
            pixels = self._accepted.pixels(block if number else block[np.newaxis])
            if gaps is not None:
                pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
            return whitened.applied(pixels, rows.indices(height)[0], columns.indices(width)[0])

        batch_shape = (count * copies, height, width, channels)
        blocks = self.windows(shown, batch_shape, None, tile, overlap, tta, theta)
        for window, (denoised, mean, std) in blocks:
            maps = [whitened.averaged(denoised), whitened.averaged(mean), whitened.averaged(std**2) ** 0.5]
            yield window, maps if number else [one[0] for one in maps]

    def adapt(self, images, sigma=None, noise=None, steps=None, seconds=None, seed=0, report=lambda share: None):
        """Return a copy of this denoiser that has gone on learning from the very images that it is to denoise.

        It makes some steps of its own training on crops of them, and keeps what it learnt only if that is better on
        blocks that were held out of the steps, by Stein's estimate of the error (`bsdenoise.adaptation`). The first
        call compiles a step, which takes some seconds more. `provenance["adapted"]` says what was done.

        Args:
            images: One image or a batch, as `denoise` takes them, or a sequence of images of any sizes.
            sigma: Noise standard deviation in the units of the scaled image: a number, or one per image. `None` takes
                the known one, or estimates it.
            noise: Noise parameters instead, as `denoise` takes them; or the `bsdenoise.noise.CorrelatedNoise` of all
                images, or one of each.
            steps: Number of steps, of a crop of 128×128 pixels each; `None` for 64, or for as many as fit.
            seconds: Time for the steps; `None` for as long as they take. The result then depends on the machine.
            seed: Of the crops and of what is held out. The same seed gives the same weights on the same machine.
            report: Called with how much is done, from 0 to 1.

        Raises:
            ValueError: If the network sees the pixel itself, the images are none that `denoise` takes or have less
                than 64² pixels in all, or `sigma`, `noise`, `steps` or `seconds` does not fit.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> noisy = rng.normal(0.5, 0.1, (64, 64)).astype("float32")
            >>> adapted = bsdenoise.load("grey-gaussian5-50-small").adapt(noisy, sigma=0.1, steps=1)
            >>> adapted.provenance["adapted"]["steps"]
            1
        """
        adapter = adaptation.Adapter(self)
        return self.with_adapted(adapter.adapted(self.as_shown(images, sigma, noise), steps, seconds, seed, report))

    def with_adapted(self, adapted):
        """Return a copy with adapted weights, `bsdenoise.adaptation.Adapted`."""
        body = adaptation.copy_of(self.network)
        body.set_weights(adapted.weights)
        copied = self.with_network(body)
        gain = {"gain_db": round(adapted.gain, 3)} if np.isfinite(adapted.gain) else {}
        done = {"steps": adapted.steps, "share": adapted.share, **gain}
        copied.provenance = {**(self.provenance or {}), "adapted": done}
        return copied

    def as_shown(self, images, sigma=None, noise=None):
        """Return images as the network is shown them, a list of `bsdenoise.adaptation.Shown`; args as for `adapt`.

        Images without any measurement are left out; of correlated noise, each image gives its copies.
        """
        if not isinstance(images, (list, tuple)):
            images = [*images] if np.ndim(images) == 4 else [images]
        first = noise[0] if isinstance(noise, (list, tuple)) and noise else noise
        if isinstance(first, correlated.CorrelatedNoise):
            found = self._correlated(images, noise)
            return [shown for image, its in zip(images, found, strict=True) for shown in self._white_copies(image, its)]
        sigma = [None] * len(images) if sigma is None else np.broadcast_to(np.asarray(sigma, np.float32), len(images))
        if noise is None:
            noise = [None] * len(images)
        else:
            noise = np.broadcast_to(np.asarray(noise, np.float32), (len(images), np.shape(noise)[-1]))
        shown = [self._as_shown(*one) for one in zip(images, sigma, noise, strict=True)]
        return [one for one in shown if one is not None]

    def _as_shown(self, image, sigma, noise):
        """Return one image as the network is shown it; `None` if it has no measurements."""
        noisy, gaps = missing.taken(image)
        if gaps is not None and gaps.is_everything:
            return None
        pixels = self._normalized(noisy).pixels
        counts = None if gaps is None else gaps.counts.reshape(pixels.shape)
        theta = self._given_theta(sigma, noise, 1)
        if theta is None and counts is not None and self.estimates_noise:
            theta = self._theta_of_measured(pixels, counts)
        shown, theta, fit = self._inference.as_shown(pixels, theta)
        return adaptation.Shown(shown[0], theta[0], None if counts is None else counts[0], fit)

    def _white_copies(self, image, found):
        """Return an image with correlated noise as its white copies, of those that have measurements."""
        noisy, gaps = missing.taken(image)
        pixels = self._accepted.pixels(self._accepted.batch(noisy))
        if gaps is not None:
            pixels = missing.with_nan(pixels, gaps.where.reshape(pixels.shape))
        whitened = whitening.Whitening([found], pixels.shape[1:3], whitening.COPIES)
        copies, thetas = whitened.applied(pixels, 0, 0), self._white_theta(whitened)
        shown = [self._as_shown(copy, None, theta) for copy, theta in zip(copies, thetas, strict=True)]
        return [one for one in shown if one is not None]

    def _white_theta(self, whitened):
        """Return the noise parameters of white copies, (copies · B, P)."""
        names = [parameter.name for parameter in self.noise.parameters]
        if not self.has_posterior or base.SIGMA not in names:
            raise ValueError("Only a model that is told a sigma can be told of correlated noise.")
        theta = np.zeros((len(whitened.sigma), len(names)), np.float32)
        # A model takes no more noise than its intensities span.
        theta[:, names.index(base.SIGMA)] = np.minimum(whitened.sigma, self.scale)
        return theta

    def _correlated(self, images, noise):
        """Return the noise of each image; `None` measures it."""
        if isinstance(noise, correlated.CorrelatedNoise):
            return [noise] * len(images)
        if noise is not None:
            if len(noise) != len(images):
                raise ValueError(f"`noise` must be one for all images, or one for each of {len(images)}.")
            return [*noise]
        found = [correlated.estimate_correlated(image) for image in images]
        if any(one is None for one in found):
            raise ValueError(
                "The noise of an image cannot be measured: it has no flat part of 24 pixels square, or no noise at all."
            )
        return found

    def _empty(self, noisy):
        """Return a result for images of which nothing was measured, once they are known to be images."""
        self._accepted.batch(noisy)
        return np.zeros(noisy.shape, noisy.dtype if noisy.dtype == np.float64 else np.float32)

    def _normalized_moments(self, noisy, sigma, noise, tile, overlap, tta, gaps=None):
        """Return images, their noise parameters and their moments in the units of the network, as batches."""
        self_ensemble.check(tta, self.blind_spot)
        normalized = self._normalized(noisy)
        theta = self._given_theta(sigma, noise, len(normalized.pixels))
        if theta is None and gaps is not None and self.estimates_noise:
            theta = self._theta_of_measured(normalized.pixels, gaps.counts.reshape(normalized.pixels.shape))
        moments, theta = self._inference.moments(normalized.pixels, theta, tile, overlap, tta)
        return normalized, theta, moments

    def _given_theta(self, sigma, noise, count):
        """Return the noise parameters that were told, (B, P), in the units of the network; `None` if none were."""
        if sigma is not None and noise is not None:
            raise ValueError("`sigma` is a short form of `noise`: give one of them.")
        if sigma is not None:
            self._check_takes_sigma()
            return self._shown(self._accepted.sigma(sigma, count)[:, np.newaxis])
        return None if noise is None else self._shown(self._accepted.theta(noise, count, self.noise.parameters))

    def _check_takes_sigma(self):
        """Refuse a σ where the noise has other parameters."""
        base.check_is_sigma(self.noise.kind, self.noise.parameters)

    def _shown(self, theta, xp=np):
        """Return noise parameters (…, P) in the units of the network."""
        return self.noise.rescaled(theta, self.offset, self.scale, xp)

    def _told(self, theta):
        """Return noise parameters (B, P) of normalised images as users are told them."""
        found = self.noise.found(np.asarray(theta, np.float64))
        return self.noise.restored(found, self.offset, self.scale).astype("float32")

    def _normalized(self, noisy):
        """Check images and return them as a batch in the units of the network."""
        pixels = self._accepted.pixels(self._accepted.batch(noisy))
        # In the precision of the input: in float32, a large offset would swallow the noise of float64 images.
        return _Normalized(self.normalized(pixels).astype("float32", copy=False), pixels.dtype)

    def _theta_of_measured(self, pixels, counts):
        """Estimate noise parameters of normalised images, (B, P), from what was measured of them, each by itself."""
        found = [
            self.solved_theta(image[np.newaxis], its_counts[np.newaxis] if its_counts.any() else None)
            for image, its_counts in zip(pixels, counts, strict=True)
        ]
        return np.concatenate([ops.convert_to_numpy(theta) for theta in found])

    def _results(self, moments, normalized):
        """Return moments in the units of the model, in the precision of the images that they are of."""
        return self.in_units([moment.astype(normalized.dtype, copy=False) for moment in moments])


class _Normalized(NamedTuple):
    """Images in the units of the network.

    Attributes:
        pixels: float32 (B, H, W, C).
        dtype: float32 or float64, the precision of the results.
    """

    pixels: np.ndarray
    dtype: np.dtype
