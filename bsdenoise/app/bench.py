"""One denoiser, and what it makes of single images: pixels, uncertainty, σ, an estimated PSNR."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bsdenoise import images, presets, progress
from bsdenoise.app.facts import Denoised
from bsdenoise.config import DenoiseConfig
from bsdenoise.images import missing
from bsdenoise.inference import whitening
from bsdenoise.noise.base import Parameter
from bsdenoise.noise.poisson_gaussian import PARAMETERS
from bsdenoise.noise.spec import parse_level
from bsdenoise.pipeline import adapting
from bsdenoise.pipeline.denoising_model import Model, parts_of

TINY = 1e-12  # noise that stands for none


class Bench:
    """Denoises images with one denoiser.

    Args:
        denoiser: As for `Workshop`.
        bits: Significant bits of integer pixels, if they are fewer than those of the type.
    """

    def __init__(self, denoiser: Any, bits: int | None = None):
        self.denoiser = denoiser
        self._bits = bits

    @property
    def can_learn(self) -> bool:
        """Whether `adapted` can go on training the model: it is here, and its network does not see the pixel."""
        return self._served is None and bool(getattr(self.denoiser.method, "is_blind", False))

    def adapted(
        self,
        noisy: Sequence[tuple[np.ndarray, np.ndarray | None]],
        sigma: str | None,
        report: Callable[[float], object],
    ) -> tuple["Bench", str]:
        """Return a bench whose model has learnt from noisy images (`bsdenoise.adaptation`), and a line on that.

        Args:
            noisy: The images, (H, W, C) each, in the type of the file and without gaps, and which of their values were
                not measured, bool of that shape, or `None`.
            sigma: As for `look`.
            report: Told how much is done, from 0 to 1.
        """
        from bsdenoise import adaptation

        takes_more = sigma is None and getattr(self.denoiser, "can_be_stabilized", False)
        denoiser = self.denoiser.stabilized() if takes_more else self.denoiser
        model = Model(denoiser, DenoiseConfig(inputs=(), sigma=sigma))
        scale = self._full_scale(noisy[0][0].dtype)
        floats = (missing.with_nan(images.to_unit(self._pixels(image)), gaps) for image, gaps in noisy)
        shown = [one for image in floats for one in adapting.as_shown(model, image, scale, 0.0)]
        found = adaptation.Adapter(denoiser).adapted(shown, report=report)
        return Bench(self.denoiser.with_adapted(found), self._bits), found.in_words()

    @property
    def known_sigma(self) -> float | None:
        """The model's own σ in its units; `None` where it estimates σ or knows noise by other numbers."""
        if not (self.denoiser.has_posterior and self._is_known and self._takes_sigma):
            return None
        return self._own_sigma(np.zeros((1, 1, self.denoiser.channels), np.float32))

    def check_channels(self, count: int, independent: bool) -> None:
        """Refuse what the model does not take, and independent channels if it is a shipped one for RGB.

        Args:
            count: Number of channels.
            independent: Whether they are no colours.

        Raises:
            ValueError: If it is one of these.
        """
        images.check_channels(count, self.denoiser.channels)
        served = self._served
        provenance = getattr(self.denoiser, "provenance", None) if served is None else served.get("training")
        presets.check_channels(provenance, count, independent)

    @property
    def trained(self) -> tuple[float, float] | None:
        """Least and greatest σ of the training, in the units of the pixels; `None` of a model that uses none."""
        if not (self.denoiser.has_posterior and self._takes_sigma):
            return None
        noise = self.denoiser.noise
        return noise.least[0] * self._scale, noise.greatest[0] * self._scale

    @property
    def peak(self) -> float | None:
        """The peak for which a PSNR is estimated, in the units of the pixels; `None` of a model that estimates none."""
        return self._scale if self.denoiser.has_posterior else None

    @property
    def _scale(self) -> float:
        return float(self.denoiser.scale if self._served is None else self._served["pixels"]["scale"])

    @property
    def _served(self) -> dict[str, Any] | None:
        """What a model behind a server says of itself; `None` of a model of this process."""
        return getattr(self.denoiser, "description", None)

    @property
    def _is_known(self) -> bool:
        return bool(self.denoiser.noise.is_known)

    @property
    def _takes_sigma(self) -> bool:
        return bool(self.denoiser.noise.takes_sigma)

    def look(self, noisy: np.ndarray, sigma: str | None, advance: Callable[[float], None]) -> Denoised:
        """Denoise one image, and tell all that the model can.

        Args:
            noisy: (H, W, C), in the type of the file.
            sigma: σ as `--sigma` takes it, `None` for the model's own.
            advance: Called with the part of the work that is done, from 0 to 1.
        """
        if not self.denoiser.has_posterior:
            return Denoised(noisy, self.denoised(noisy, sigma, advance))
        if sigma is None and (other := self._of_other_noise(noisy)) is not None:
            compute_other, remark = other
            done = compute_other(advance)
            ratio = np.concatenate(done.ratios, axis=-1).mean(axis=-1)
            words = self._words(PARAMETERS, done.own_noise, noisy.dtype) + remark
            return Denoised(noisy, self._joined([*done.images], noisy.dtype), ratio, noise=words)

        def compute(part: np.ndarray) -> tuple[float, Any]:
            given = self._given_sigma(part, sigma)
            found = self.denoiser.posterior(self._pixels(part), sigma=given)
            used = found.sigma if given is None else given
            return self._own_sigma(images.to_unit(part, self._bits)) if used is None else float(used), found

        if not self._takes_sigma:
            return self._look_by_parameters(noisy, sigma, advance)
        found = _watched(compute, images.parts_for(noisy, self.denoiser.channels), advance)
        sigmas, posteriors = zip(*found, strict=True)
        # Without any noise, σ and the standard deviation are 0.
        ratios = [np.asarray(one.std) / np.float32(own or 1) for one, own in zip(posteriors, sigmas, strict=True)]
        origin = "given" if sigma is not None else "known" if self._is_known else "estimated"
        return Denoised(
            noisy,
            self._joined([one.denoised for one in posteriors], noisy.dtype),
            np.concatenate(ratios, axis=-1).mean(axis=-1),
            tuple(own * self._full_scale(noisy.dtype) for own in sigmas),
            origin,
            None if origin == "estimated" else _joint_psnr([float(one.estimated_psnr) for one in posteriors]),
            sigma,
        )

    def _look_by_parameters(self, noisy: np.ndarray, sigma: str | None, advance: Callable[[float], None]) -> Denoised:
        """Denoise one image with a model whose noise is more than a σ; arguments as for `look`."""

        def compute(part: np.ndarray) -> Any:
            return self.denoiser.posterior(self._pixels(part), sigma=self._given_sigma(part, sigma))

        posteriors = _watched(compute, images.parts_for(noisy, self.denoiser.channels), advance)
        ratio = None
        if self._served is None:  # how strong noise is at a pixel, a server does not tell
            stds = [
                self.denoiser.noise_std(np.asarray(one.mean)[np.newaxis], np.asarray(one.noise)[np.newaxis])[0]
                for one in posteriors
            ]
            pairs = zip(posteriors, stds, strict=True)
            ratios = [np.minimum(np.asarray(one.std) / np.maximum(std, TINY), 1) for one, std in pairs]
            ratio = np.concatenate(ratios, axis=-1).mean(axis=-1)
        thetas = np.stack([np.asarray(one.noise) for one in posteriors])
        return Denoised(
            noisy,
            self._joined([one.denoised for one in posteriors], noisy.dtype),
            ratio,
            estimated_psnr=None
            if not self._is_known
            else _joint_psnr([float(one.estimated_psnr) for one in posteriors]),
            noise=self._words(self.denoiser.noise.parameters, thetas, noisy.dtype),
        )

    def _words(self, parameters: Sequence[Parameter], thetas: np.ndarray, dtype: np.dtype) -> str:
        """Write noise parameters (B, P) in the units of the file."""
        scale = self._full_scale(dtype)
        return ", ".join(
            f"{parameter.name} {float(parameter.restored(value, 0.0, scale)):.4g}"
            for theta in thetas
            for parameter, value in zip(parameters, theta, strict=True)
        )

    def denoised(self, noisy: np.ndarray, sigma: str | None, advance: Callable[[float], None]) -> np.ndarray:
        """Denoise one image, and no more; arguments as for `look`."""
        if sigma is None and (other := self._of_other_noise(noisy)) is not None:
            return self._joined([*other[0](advance).images], noisy.dtype)

        def compute(part: np.ndarray) -> Any:
            return self.denoiser.denoise(self._pixels(part), sigma=self._given_sigma(part, sigma))

        parts = images.parts_for(noisy, self.denoiser.channels)
        return self._joined(_watched(compute, parts, advance), noisy.dtype)

    def _of_other_noise(self, noisy: np.ndarray) -> tuple[Callable[..., Any], str] | None:
        """Find out whether an image has other noise than white, as `bsdenoise denoise` does.

        Args:
            noisy: (H, W, C), in the type of the file.

        Returns:
            What denoises it, told of how far it is, and what there is to say beside the parameters of the noise; `None`
            where noise is taken for white, or left to a server.
        """
        if self._served is not None or not getattr(self.denoiser, "can_be_stabilized", False):
            return None
        stabilized = self.denoiser.stabilized()
        model = Model(stabilized, DenoiseConfig(inputs=(), std=True))
        parts = parts_of(self._pixels(noisy), model.channels)
        if model.looks_correlated(parts) and (found := model.correlated_noise(parts)) is not None:
            correlation = np.mean([one.neighbours for one in found])
            remark = f"; neighbouring pixels share it (correlation {correlation:.2f}), so it was made white first"
            passes, compute = whitening.COPIES, functools.partial(model.denoise_correlated, parts, found)
        else:
            theta = np.asarray(stabilized.first_theta(stabilized.normalized(images.to_unit(parts))))
            if not theta[:, 0].any():  # no gain: it does not grow with the signal
                return None
            passes, remark, compute = 1, "", functools.partial(model.denoise, parts)

        def watched(advance: Callable[[float], None]) -> Any:
            whole = passes * len(parts) * noisy.shape[0] * noisy.shape[1]
            return _watched(lambda _: compute(), [noisy], advance, whole)[0]

        return watched, remark

    def _pixels(self, noisy: np.ndarray) -> np.ndarray:
        """Return pixels as the model takes them: integers with a full scale of their own as fractions of it."""
        if self._bits is None:
            return noisy
        # A model of floats refuses integers in words of its own.
        served = self._served
        takes_fractions = self.denoiser.fractional if served is None else served["pixels"]["fractional"]
        return images.to_unit(noisy, self._bits) if takes_fractions else noisy

    def _joined(self, parts: list[Any], dtype: np.dtype) -> np.ndarray:
        return images.from_unit(np.concatenate([np.asarray(part) for part in parts], axis=-1), dtype, self._bits)

    def _full_scale(self, dtype: np.dtype) -> float:
        return images.full_scale(dtype, self._bits)

    def _given_sigma(self, noisy: np.ndarray, sigma: str | None) -> float | None:
        """Return the σ that was asked for in the model's units."""
        return None if sigma is None else parse_level(sigma, self._full_scale(noisy.dtype))

    def _own_sigma(self, image: np.ndarray) -> float:
        return float(self.denoiser.own_sigma(image[np.newaxis])[0])


def _watched(
    compute: Callable[[np.ndarray], Any],
    parts: list[np.ndarray],
    advance: Callable[[float], None],
    of: int | None = None,
) -> list[Any]:
    """Compute something of each part of an image, and tell how much of all is done, also while one is at work.

    Args:
        compute: What is computed.
        parts: Parts of equal size.
        advance: Called with the part of the work that is done, from 0 to 1.
        of: How many pixels the computation of a part counts; `None` for its own.
    """
    results, done = [], 0.0

    def count(share: float) -> None:
        nonlocal done
        done += share
        advance(min(done, 1.0))

    with progress.watched_by(count):
        for part in parts:
            with progress.part(1 / len(parts), of=part.shape[0] * part.shape[1] if of is None else of):
                results.append(compute(part))
    return results


def _joint_psnr(psnrs: list[float]) -> float:
    """Return the PSNR over all channels from those of each, whose squared errors are averaged; NaN if one is NaN."""
    return float(-10 * np.log10(np.mean(10 ** (-np.array(psnrs) / 10))))
