"""The model of `bsdenoise denoise`, here or behind a server: what it is asked, and with which σ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bsdenoise import images, presets
from bsdenoise.config import DenoiseConfig
from bsdenoise.inference import tiling
from bsdenoise.noise import noise_floor
from bsdenoise.noise.spec import parse_level
from bsdenoise.pipeline import float_units
from bsdenoise.pipeline.float_units import Units

TOLERANCE = 1.25  # factor by which σ may be beyond those of the training before that is worth a word; a choice
LOOKED_AT = 512  # side in pixels of the part of an image whose noise is looked at for correlation


@dataclass(frozen=True)
class Denoised:
    """Denoised images.

    Attributes:
        images: (B, H, W, C), float32.
        ratios: Posterior standard deviations over σ, (B, H, W, C); `None` unless `--std` asks for them.
        own_sigmas: σ of each image, if it was the model's own.
    """

    images: np.ndarray
    ratios: np.ndarray | None
    own_sigmas: tuple[float, ...]


class Model:
    """A model as the command's flags want it asked.

    Args:
        denoiser: A `Denoiser` or a `bsdenoise.client.Client`.
        config: The flags.
        say: Called with a line on whatever a user should know.
        tells_sigma: Whether the σ that a served model uses by itself is asked for, which takes a request per image.
    """

    def __init__(
        self,
        denoiser: Any,
        config: DenoiseConfig,
        say: Callable[[str], object] = lambda line: None,
        tells_sigma: bool = True,
    ):
        self.denoiser = denoiser
        self._config = config
        self._say = say
        self._tells_sigma = tells_sigma
        self._noted = False
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
    def gives_std(self) -> bool:
        """Whether uncertainties are asked for."""
        return self._config.std

    @property
    def has_sigma(self) -> bool:
        """Whether `sigma` gives one."""
        return self._config.sigma is not None or self.denoiser.has_posterior

    @property
    def uses_own_sigma(self) -> bool:
        """Whether σ is the model's own."""
        return self._config.sigma is None and self.denoiser.has_posterior and self._tells_sigma

    @property
    def estimates_sigma(self) -> bool:
        """Whether σ is estimated for each image."""
        return self.uses_own_sigma and not self.denoiser.noise.is_known

    @property
    def most_sigma(self) -> float:
        """The greatest σ that is estimated, as a model of this process and a server give it, in the units of images."""
        high = self.denoiser.noise.high
        return high if self.is_served else high * self.denoiser.scale

    def check(self) -> None:
        """Refuses before the first file what the model cannot do, and a σ that cannot be read; notes an idle one.

        Whether σ is too large, the model tells.

        Raises:
            ValueError: If it cannot do what is asked for.
        """
        if self._config.sigma is not None:
            parse_level(self._config.sigma, 1.0)  # its words alone: it has no upper end
        if self._config.tile is not None or self._config.overlap is not None:
            tiling.choose(self.denoiser.grid, self._config.tile, self._config.overlap)
        if self.denoiser.has_posterior:
            return
        name = self.denoiser.method.name
        if self._config.std:
            raise ValueError(
                "--std needs a model that says how sure it is, of method full or per_component. "
                f"Received: a model of method {name}, which only denoises."
            )
        if self._config.sigma is not None:
            self._say(f"a model of method {name} does not use --sigma")

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
        """Give pixels of a file as the model takes them.

        Integers with a full scale of their own become fractions of it, floats what their units say.
        """
        if array.dtype.kind == "f":
            return its_units.to_model(array)
        # A model of floats refuses integers in words of its own.
        return array if file.bits is None or not self._takes_fractions else images.to_unit(array, file.bits)

    def looks_correlated(self, parts: np.ndarray) -> bool:
        """Tell whether σ is estimated from noise that neighbouring pixels share.

        Args:
            parts: What the model takes of an image, (B, H, W, C).
        """
        if not self.estimates_sigma:
            return False
        _, height, width, _ = parts.shape
        rows, columns = tiling.middle(height, width, LOOKED_AT)
        floors = [noise_floor.measure(images.to_unit(part[rows, columns])) for part in parts]
        return noise_floor.is_correlated([floor for floor in floors if floor is not None], 1.0)

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
    def _takes_fractions(self) -> bool:
        if not self.is_served:
            return bool(self.denoiser.fractional)
        return bool(self.denoiser.description["pixels"]["fractional"])

    def sigma(self, batch: np.ndarray, full_scale: float | None = None) -> np.ndarray | None:
        """Gives σ of each image, (B,), in the model's units: the one asked for, or the model's own if it uses one.

        Args:
            batch: The images.
            full_scale: Of their files, if it is not that of the type.
        """
        if self._config.sigma is not None:
            scale = images.full_scale(batch.dtype) if full_scale is None else full_scale
            sigma = parse_level(self._config.sigma, scale)
            self._check_level(sigma, scale)
            self._note_untrained(sigma, scale)
            return np.full(len(batch), sigma)
        if not self.uses_own_sigma:
            return None
        return np.asarray(self.denoiser.own_sigma(images.to_unit(batch)), np.float64)

    def _check_level(self, sigma: float, full_scale: float) -> None:
        """Refuses a σ that the model refuses, in the units in which it was declared.

        Raises:
            ValueError: If it is larger than the range of intensities that the model was trained on.
        """
        if self.denoiser.has_posterior and sigma > self._scale:
            raise ValueError(
                f"--sigma {self._config.sigma} is more than the model takes: for this file at most "
                f"{self._scale * full_scale:g}, the range of its intensities."
            )

    def _note_untrained(self, sigma: float, full_scale: float) -> None:
        """Says once if a model of this process was trained for another σ than the one that is asked for."""
        if self._noted or self.is_served or not self.denoiser.has_posterior:
            return
        low, high = (level * self.denoiser.scale for level in (self.denoiser.noise.low, self.denoiser.noise.high))
        # Weak noise is no matter where a model was trained for a range: how little it is, the likelihood is told.
        if (low < high or low / TOLERANCE <= sigma) and sigma <= high * TOLERANCE:
            return
        self._noted = True
        trained = " to ".join(dict.fromkeys(f"{level * full_scale:.5g}" for level in (low, high)))
        line = f"the model was trained for a sigma of {trained}, and is told {sigma * full_scale:.5g}"
        self._say(f"{line}: its results may be poor")

    def denoise(self, batch: np.ndarray, full_scale: float | None = None) -> Denoised:
        """Denoises a batch.

        Args:
            batch: (B, H, W, C) with as many channels as the model takes, as `pixels` gives them.
            full_scale: Of their files, if it is not that of the type.

        Raises:
            ValueError: If the model refuses it.
        """
        if not self.is_served and self.uses_own_sigma:
            return self._with_own_sigma(batch)
        sigma = self.sigma(batch, full_scale)
        # One image is given as such, so that the model's refusals speak of one.
        noisy, its_sigma = (batch, sigma) if len(batch) > 1 else (batch[0], None if sigma is None else float(sigma[0]))
        denoised, ratios = self.denoise_with(noisy, its_sigma)
        own = tuple(float(value) for value in sigma) if sigma is not None and self.uses_own_sigma else ()
        return Denoised(denoised.reshape(batch.shape), None if ratios is None else ratios.reshape(batch.shape), own)

    def _with_own_sigma(self, batch: np.ndarray) -> Denoised:
        """Denoises a batch with the σ that the model finds in the same pass of its network."""
        noisy = batch if len(batch) > 1 else batch[0]
        ratios = None
        if self.gives_std:
            posterior = self.denoiser.posterior(noisy, **self.options)
            denoised, sigma = posterior.denoised, np.atleast_1d(posterior.sigma)
            ratios = over_sigma(np.asarray(posterior.std).reshape(batch.shape), sigma)
        else:
            denoised, sigma = self.denoiser.denoise_with_sigma(noisy, **self.options)
        own = tuple(float(value) for value in sigma)
        return Denoised(np.asarray(denoised).reshape(batch.shape), ratios, own)

    def denoise_with(self, noisy: np.ndarray, sigma: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Denoises an image or a batch with a known σ; gives the posterior standard deviation over σ if asked for."""
        if not self.gives_std:
            # A server estimates from the whole image, of which a client may have sent it a part only.
            is_left_to_it = self.is_served and self._config.sigma is None
            sent = None if is_left_to_it else sigma
            return np.asarray(self.denoiser.denoise(noisy, sigma=sent, **self.options)), None
        posterior = self.denoiser.posterior(noisy, sigma=sigma, **self.options)
        return np.asarray(posterior.denoised), over_sigma(np.asarray(posterior.std), sigma)


def over_sigma(std: np.ndarray, sigma: Any) -> np.ndarray:
    """Divides standard deviations (…, H, W, C) by σ, a number or (B,); 1 where there is no noise: nothing is gained."""
    sigma = np.asarray(sigma, np.float32)
    sigma = sigma.reshape(*sigma.shape, *[1] * (std.ndim - sigma.ndim))
    return np.where(sigma > 0, std / np.where(sigma > 0, sigma, 1), np.float32(1))


def parts_of(noisy: np.ndarray, channels: int) -> np.ndarray:
    """Gives what a model takes of an image, (H, W) or (H, W, C), as a batch (B, H, W, channels).

    That is the whole image, or for a one-channel model each colour channel as an image of its own.

    Raises:
        ValueError: If the model cannot take the image.
    """
    parts = images.parts_for(noisy if noisy.ndim == 3 else noisy[..., np.newaxis], channels)
    return np.stack(parts) if len(parts) > 1 else parts[0][np.newaxis]  # no copy of the one there is


def joined(parts: np.ndarray) -> np.ndarray:
    """Undoes `parts_of`; gives (H, W, C)."""
    return np.concatenate(list(parts), axis=-1) if len(parts) > 1 else parts[0]
