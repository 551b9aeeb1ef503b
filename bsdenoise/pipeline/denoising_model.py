"""The model of `bsdenoise denoise`, here or behind a server: what it is asked, and with which noise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise import images, presets
from bsdenoise.config import DenoiseConfig
from bsdenoise.inference import self_ensemble, tiling
from bsdenoise.network import blindness
from bsdenoise.noise import registry, verdicts
from bsdenoise.noise.anscombe import StabilizedNoise
from bsdenoise.noise.base import SIGMA, Parameter, check_is_sigma
from bsdenoise.noise.correlated import CorrelatedNoise, blind_spot
from bsdenoise.noise.spec import read_level
from bsdenoise.pipeline import float_units
from bsdenoise.pipeline.float_units import Units

TOLERANCE = 1.25  # factor by which σ may be beyond those of the training before that is worth a word; a choice


@dataclass(frozen=True)
class Denoised:
    """Denoised images.

    Attributes:
        images: (B, H, W, C), float32.
        ratios: Posterior standard deviations over those of the noise, (B, H, W, C); `None` if not asked for (`--std`).
        own_noise: Noise parameters of each image, (B, P), if they were the model's own.
    """

    images: np.ndarray
    ratios: np.ndarray | None
    own_noise: np.ndarray | None = None


class Model:
    """A model as the command's flags want it asked.

    Args:
        denoiser: A `Denoiser` or a `bsdenoise.client.Client`.
        config: The flags.
        say: Called with a line on whatever a user should know.
        tells_noise: Whether the noise that a served model finds by itself is asked for, in a request per image.
    """

    def __init__(
        self,
        denoiser: Any,
        config: DenoiseConfig,
        say: Callable[[str], object] = lambda line: None,
        tells_noise: bool = True,
    ):
        self.denoiser = denoiser
        self._config = config
        self._say = say
        self._tells_noise = tells_noise
        self._level = None if config.sigma is None else read_level(config.sigma)
        self._is_told = config.sigma is not None or config.noise is not None
        self._noted = self._doubted = False
        self._of_blind_spot: dict[tuple[int, int], Model] = {}
        asked = {"tta": config.tta if config.tta > 1 else None, "tile": config.tile, "overlap": config.overlap}
        self.options = {name: value for name, value in asked.items() if value is not None}

    @property
    def is_served(self) -> bool:
        """Whether it is a `bsdenoise.client.Client`."""
        return hasattr(self.denoiser, "description")

    @property
    def channels(self) -> int:
        """Number of channels of the images that it takes."""
        return self.denoiser.channels

    @property
    def blind_spot(self) -> tuple[int, int] | None:
        """Height and width of the network's blind spot; `None` if it has none, or is not here."""
        return getattr(self.denoiser, "blind_spot", None)

    @property
    def gives_std(self) -> bool:
        """Whether uncertainties are asked for."""
        return self._config.std

    @property
    def has_noise(self) -> bool:
        """Whether `noise` gives any."""
        return self._is_told or self.denoiser.has_posterior

    @property
    def uses_own_noise(self) -> bool:
        """Whether the noise is what the model takes it to be."""
        return not self._is_told and self.denoiser.has_posterior and self._tells_noise

    @property
    def estimates_noise(self) -> bool:
        """Whether the noise of each image is estimated."""
        return self.uses_own_noise and not self.denoiser.noise.is_known

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of its noise."""
        return tuple(self.denoiser.noise.parameters)

    @property
    def greatest(self) -> tuple[float, ...]:
        """The greatest noise parameters of the training, in the units of images."""
        pairs = zip(self.parameters, self.denoiser.noise.greatest, strict=True)
        return tuple(parameter.restored(value, self._offset, self._scale) for parameter, value in pairs)

    def check(self) -> None:
        """Refuse before the first file what the model cannot do, and a σ that cannot be read; notes an idle one.

        Whether σ is too large, the model tells.

        Raises:
            ValueError: If it cannot do what is asked for.
        """
        if self._config.sigma is not None:
            check_is_sigma(self.denoiser.noise.kind, self.parameters)
        if self._config.noise is not None:
            self._check_noise(self._config.noise)
        if self._config.tile is not None or self._config.overlap is not None:
            tiling.choose(self.denoiser.grid, self._config.tile, self._config.overlap)
        self_ensemble.check(self._config.tta, self.blind_spot)
        if self.denoiser.has_posterior:
            if self._config.std and self.is_served and not self.denoiser.noise.takes_sigma:
                raise ValueError(
                    f"--std needs the model here: of {self.denoiser.noise.kind} noise a server does not tell how "
                    "strong it is at each pixel."
                )
            return
        name = self.denoiser.method.name
        if self._config.std:
            raise ValueError(
                "--std needs a model that says how sure it is, of method full or per_component. "
                f"Received: a model of method {name}, which only denoises."
            )
        if self._config.sigma is not None:
            self._say(f"a model of method {name} does not use --sigma")

    def _check_noise(self, spec: str) -> None:
        """Refuse noise that cannot be read, is a range, or has other parameters than that of the model."""
        declared = registry.read(spec, 1.0)
        if declared.least != declared.greatest:
            raise ValueError(
                f"--noise {spec}: noise of a range is for training; give each file's own, or leave it out."
            )
        known = {parameter.name for parameter in self.parameters}
        if not {parameter.name for parameter in declared.parameters} <= known:
            raise ValueError(
                f"--noise {spec}: the model knows noise by {', '.join(sorted(known))} alone. Models that were trained "
                "for white noise of a range, as the presets are, take noise that grows with the signal."
            )

    def check_file(self, file: images.ImageFile) -> None:
        """Refuse a file that the model cannot take, or should not: independent channels are no picture in colour.

        Raises:
            ValueError: If it cannot, or it is a shipped model for RGB and the channels are independent.
        """
        images.check_channels(file.channels, self.channels)
        presets.check_channels(self._provenance, file.channels, file.independent_channels)

    def units_of(self, file: images.ImageFile) -> Units:
        """Find the units of a file's floats where the model takes fractions of full scale, such as a shipped one.

        Raises:
            ValueError: If the file cannot be read.
        """
        is_plain = self._takes_fractions and self._scale == 1.0
        return float_units.of_floats(file) if is_plain and file.dtype.kind == "f" else Units()

    def pixels(self, array: np.ndarray, file: images.ImageFile, its_units: Units) -> np.ndarray:
        """Return pixels of a file as the model takes them.

        Integers with a full scale of their own become fractions of it, floats what their units say.
        """
        if array.dtype.kind == "f":
            return its_units.to_model(array)
        # A model of floats refuses integers in words of its own.
        return array if file.bits is None or not self._takes_fractions else images.to_unit(array, file.bits)

    def blind_spot_for(self, parts: np.ndarray) -> tuple[int, int] | None:
        """Choose the blind spot that the noise of an image needs, no larger than the model's on either side.

        Args:
            parts: What the model takes of the image, (B, H, W, C).

        Returns:
            Height and width; `None` if that is not asked for, the model's is one pixel, or there is nothing to measure.
        """
        own = self.blind_spot
        if self._config.blind_spot != blindness.AUTO or own in (None, (1, 1)):
            return None
        found = self.correlated_noise(self._middle(parts))
        if found is None:
            return None
        needed = blind_spot(np.mean([one.correlations for one in found], axis=0))
        if self._config.tta > 1 and own[0] == own[1]:  # copies are transposed
            needed = (max(needed), max(needed))
        return min(needed[0], own[0]), min(needed[1], own[1])

    def with_blind_spot(self, size: tuple[int, int] | None) -> "Model":
        """Return the model with another blind spot; `None` gives the model itself."""
        if size in (None, self.blind_spot):
            return self
        if size not in self._of_blind_spot:
            denoiser = self.denoiser.with_blind_spot(size)
            self._of_blind_spot[size] = Model(denoiser, self._config, self._say, self._tells_noise)
        return self._of_blind_spot[size]

    @staticmethod
    def _middle(parts: np.ndarray) -> np.ndarray:
        """Return the middle of images, in which their noise is looked at, with fractions of full scale."""
        _, height, width, _ = parts.shape
        rows, columns = tiling.middle(height, width, verdicts.LOOKED_AT)
        return np.stack([images.to_unit(part[rows, columns]) for part in parts])

    def looks_correlated(self, parts: np.ndarray) -> bool:
        """Tell whether noise is estimated that neighbouring pixels share, and the network sees them.

        Args:
            parts: What the model takes of an image, (B, H, W, C).
        """
        if not self.estimates_noise or self.blind_spot not in (None, (1, 1)):
            return False  # a larger blind spot hides it
        middle = self._middle(parts)
        is_told_apart = not self.is_served and self.denoiser.noise.kind == StabilizedNoise.kind
        return verdicts.looks_correlated(middle, self.denoiser.noise if is_told_apart else None)

    def doubt(self, parts: np.ndarray) -> str | None:
        """Say of the first image that is given if its noise does not look white where --sigma says that it is.

        Args:
            parts: What the model takes of it, (B, H, W, C).
        """
        if self._level is None or self.is_served or self._doubted or not self.denoiser.has_posterior:
            return None
        self._doubted = True
        if not getattr(self.denoiser, "can_be_stabilized", False):
            return None
        shown = self._middle(parts)
        if not verdicts.known(verdicts.quiet_parts(shown)):  # too small to tell
            return None
        return verdicts.decide(shown, self.denoiser.stabilized().noise).kind

    def correlated_noise(self, parts: np.ndarray) -> list[CorrelatedNoise] | None:
        """Measure noise that neighbouring pixels share.

        Args:
            parts: What the model takes of an image, (B, H, W, C).

        Returns:
            That of each part; `None` if it cannot be measured, or the model is not here.
        """
        return None if self.is_served else verdicts.correlated([images.to_unit(part) for part in parts])

    @property
    def _provenance(self) -> dict[str, Any] | None:
        if not self.is_served:
            return getattr(self.denoiser, "provenance", None)
        return self.denoiser.description.get("training")

    @property
    def _scale(self) -> float:
        """Difference of pixels that the network sees as 1."""
        if not self.is_served:
            return float(self.denoiser.scale)
        return float(self.denoiser.description["pixels"]["scale"])

    @property
    def _offset(self) -> float:
        """Pixel value that the network sees as 0."""
        if not self.is_served:
            return float(self.denoiser.offset)
        return float(self.denoiser.description["pixels"]["offset"])

    @property
    def _takes_fractions(self) -> bool:
        if not self.is_served:
            return bool(self.denoiser.fractional)
        return bool(self.denoiser.description["pixels"]["fractional"])

    def noise(self, batch: np.ndarray, full_scale: float | None = None, offset: float = 0.0) -> np.ndarray | None:
        """Return the noise of each image, (B, P), in the model's units: as told, or the model's own if it uses any.

        Args:
            batch: The images.
            full_scale: Of their files, if it is not that of the type.
            offset: Intensity of their files that is 0 in them.
        """
        if self._level is not None:
            scale = images.full_scale(batch.dtype) if full_scale is None else full_scale
            sigma = self._level.fraction(scale)
            self._check_level(sigma, scale)
            self._note_untrained(sigma, scale)
            return np.full((len(batch), 1), sigma)
        if self._config.noise is not None:
            scale = images.full_scale(batch.dtype) if full_scale is None else full_scale
            declared = registry.read(self._config.noise, scale).rescaled(offset / scale, 1.0)
            told = dict(zip((parameter.name for parameter in declared.parameters), declared.made().least, strict=True))
            # White noise has no gain and no pedestal.
            return np.tile([told.get(parameter.name, 0.0) for parameter in self.parameters], (len(batch), 1))
        if not self.uses_own_noise:
            return None
        own = self.denoiser.own_noise(images.to_unit(batch))
        return np.asarray(own, np.float64).reshape(len(batch), len(self.parameters))

    def told(self, theta: np.ndarray | None, is_one: bool = False) -> dict[str, Any]:
        """Return noise parameters (B, P) as arguments of a `Denoiser`; of one image alone if there `is_one`."""
        if theta is None:
            return {}
        if self.denoiser.noise.takes_sigma:
            return {"sigma": float(theta[0, 0]) if is_one else theta[:, 0]}
        return {"noise": theta[0] if is_one else theta}

    def _check_level(self, sigma: float, full_scale: float) -> None:
        """Refuse a σ that the model refuses, in the units in which it was declared.

        Raises:
            ValueError: If it is larger than the range of intensities that the model was trained on.
        """
        if self.denoiser.has_posterior and sigma > self._scale:
            raise ValueError(
                f"--sigma {self._config.sigma} is more than the model takes: for this file at most "
                f"{self._scale * full_scale:g}, the range of its intensities."
            )

    def _note_untrained(self, sigma: float, full_scale: float) -> None:
        """Say once if a model of this process was trained for another σ than the one that is asked for."""
        if self._noted or self.is_served or not self.denoiser.has_posterior:
            return
        noise = self.denoiser.noise
        low, high = (level * self.denoiser.scale for level in (*noise.least, *noise.greatest))
        # Weak noise is no matter where a model was trained for a range: how little it is, the likelihood is told.
        if (low < high or low / TOLERANCE <= sigma) and sigma <= high * TOLERANCE:
            return
        self._noted = True
        trained = " to ".join(dict.fromkeys(f"{level * full_scale:.5g}" for level in (low, high)))
        line = f"the model was trained for a sigma of {trained}, and is told {sigma * full_scale:.5g}"
        self._say(f"{line}: its results may be poor")

    def denoise(self, batch: np.ndarray, full_scale: float | None = None, offset: float = 0.0) -> Denoised:
        """Denoise a batch.

        Args:
            batch: (B, H, W, C) with as many channels as the model takes, as `pixels` gives them.
            full_scale: Of their files, if it is not that of the type.
            offset: Intensity of their files that is 0 in them.

        Raises:
            ValueError: If the model refuses it.
        """
        if not self.is_served and self.uses_own_noise:
            return self._with_own_noise(batch)
        theta = self.noise(batch, full_scale, offset)
        # A server estimates from the whole image, of which a client may have sent it a part only.
        is_left_to_it = self.is_served and not self._is_told and not self.gives_std
        is_one = len(batch) == 1
        told = self.told(None if is_left_to_it else theta, is_one)
        # One image is given as such, so that the model's refusals speak of one.
        noisy, ratios = batch[0] if is_one else batch, None
        if self.gives_std:
            posterior = self.denoiser.posterior(noisy, **told, **self.options)
            denoised, ratios = posterior.denoised, self._ratios(posterior, theta, batch.shape)
        else:
            denoised = self.denoiser.denoise(noisy, **told, **self.options)
        return Denoised(np.asarray(denoised).reshape(batch.shape), ratios, theta if self.uses_own_noise else None)

    def denoise_correlated(self, parts: np.ndarray, found: list[CorrelatedNoise]) -> Denoised:
        """Denoise an image whose noise neighbouring pixels share.

        Args:
            parts: What the model takes of it, (B, H, W, C).
            found: The noise of each part.
        """
        denoised = np.empty(parts.shape, np.float32)
        ratios = np.empty(parts.shape, np.float32) if self.gives_std else None

        def read(rows: slice, columns: slice) -> np.ndarray:
            return parts[:, rows, columns]

        for window, maps in self.windows_correlated(read, parts.shape, found):
            denoised[:, *window] = maps[0]
            if ratios is not None:
                ratios[:, *window] = maps[1]
        return Denoised(denoised, ratios, self.theta_of_correlated(found))

    def windows_correlated(
        self, read: Callable, shape: tuple[int, ...], found: list[CorrelatedNoise]
    ) -> Iterator[tuple[tuple[slice, slice], list[np.ndarray]]]:
        """Denoise images whose noise neighbouring pixels share, block by block.

        Args:
            read: Gives the pixels of some rows and columns, (B, h, w, C), as `pixels` does.
            shape: (B, H, W, C).
            found: The noise of each image.

        Yields:
            Rows and columns, and what is asked for there, (B, h, w, C): the denoised pixels, and posterior standard
            deviations over those of the noise. These are upper bounds: they hold with the noise that is added.
        """
        noise_std = np.stack([one.sigma for one in found])[:, np.newaxis, np.newaxis]
        for window, (denoised, _, std) in self.denoiser.windows_correlated(read, shape, found, **self.options):
            ratios = [np.minimum(std / np.maximum(noise_std, 1e-12), 1.0)] if self.gives_std else []
            yield window, [denoised, *ratios]

    def theta_of_correlated(self, found: list[CorrelatedNoise]) -> np.ndarray:
        """Return noise parameters (B, P): σ is that of all channels together."""
        names = [parameter.name for parameter in self.parameters]
        theta = np.zeros((len(found), len(names)), np.float32)
        theta[:, names.index(SIGMA)] = [np.sqrt(np.mean(one.sigma**2)) for one in found]
        return theta

    def _with_own_noise(self, batch: np.ndarray) -> Denoised:
        """Denoise a batch with the noise that the model finds in the same pass of its network."""
        noisy = batch if len(batch) > 1 else batch[0]
        ratios = None
        if self.gives_std:
            posterior = self.denoiser.posterior(noisy, **self.options)
            denoised, theta = posterior.denoised, np.asarray(posterior.noise).reshape(len(batch), -1)
            ratios = self._ratios(posterior, theta, batch.shape)
        else:
            denoised, theta = self.denoiser.denoise_with_noise(noisy, **self.options)
        return Denoised(np.asarray(denoised).reshape(batch.shape), ratios, np.asarray(theta))

    def _ratios(self, posterior: Any, theta: Any, shape: tuple[int, ...]) -> np.ndarray:
        std, mean = (np.asarray(array).reshape(shape) for array in (posterior.std, posterior.mean))
        return self.over_noise(std, mean, theta)

    def over_noise(self, std: np.ndarray, mean: np.ndarray, theta: Any) -> np.ndarray:
        """Divide posterior standard deviations by those of the noise; 1 where there is none: nothing is gained.

        Args:
            std: (B, H, W, C).
            mean: The predictions from the surroundings, (B, H, W, C).
            theta: Noise parameters, (B, P).
        """
        theta = np.asarray(theta, np.float32)
        if self.denoiser.noise.takes_sigma:
            noise_std = theta[:, np.newaxis, np.newaxis]
        else:
            noise_std = self.denoiser.noise_std(mean, theta)
        # Near black, the variance of an inverse transform is not exactly below that of the noise.
        ratios = np.minimum(std / np.where(noise_std > 0, noise_std, 1), np.float32(1))
        return np.where(noise_std > 0, ratios, np.float32(1))


def parts_of(noisy: np.ndarray, channels: int) -> np.ndarray:
    """Return what a model takes of an image, (H, W) or (H, W, C), as a batch (B, H, W, channels).

    That is the whole image, or for a one-channel model each colour channel as an image of its own.

    Raises:
        ValueError: If the model cannot take the image.
    """
    parts = images.parts_for(noisy if noisy.ndim == 3 else noisy[..., np.newaxis], channels)
    return np.stack(parts) if len(parts) > 1 else parts[0][np.newaxis]  # no copy of the one there is


def joined(parts: np.ndarray) -> np.ndarray:
    """Undo `parts_of`; gives (H, W, C)."""
    return np.concatenate(list(parts), axis=-1) if len(parts) > 1 else parts[0]
