"""Which denoiser of a run is kept: that of the validation with the least estimated error."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from bsdenoise import loading
from bsdenoise.config import TrainConfig
from bsdenoise.data.training_images import TrainingImages
from bsdenoise.likelihood.posterior import WITHHELD
from bsdenoise.training import preparation
from bsdenoise.training.run_folder import RunFolder
from bsdenoise.training.step import TrainingState
from bsdenoise.training.validation import Validation


class Selection:
    """Validates the averaged weights of a run now and then, keeps the best, and says how good they are.

    Args:
        config: The run's flags.
        data: The training images.
        state: What is trained; it remembers how good the denoiser is that is kept.
        folder: Where that is written.
        unit: Full scale of the files, by which what is said is in their own units.

    Raises:
        ValueError: If none of the images can be read.
    """

    def __init__(self, config: TrainConfig, data: TrainingImages, state: TrainingState, folder: RunFolder, unit: float):
        self._config, self._data, self._state, self._folder = config, data, state, folder
        self._validation = Validation(state.denoiser, data, config.validation_images, config.validation_crop)
        self._is_withheld_said = False
        self._tell_of_other_noise(unit)
        if np.isnan(state.best_error):
            self._measure_again()

    @property
    def score(self) -> str:
        """Name of the PSNR that is estimated."""
        return self._validation.score

    def validate(self, step: int, require: Callable[[bool, str, int], None]) -> None:
        """Measure the averaged weights on held-out noisy images, and keep them if they are the best so far.

        Args:
            step: The step of the weights.
            require: Called with whether all is finite, words for what is not, and the step.
        """
        state, result = self._state, self._validation()
        values, psnr = result.values, result.values[self.score]
        is_finite = all(value is not None and np.isfinite(value) for value in (values["loss"], result.error))
        require(is_finite, f"The validation loss is {values['loss']}", step)
        self._folder.log("validation", step, values | {"error": result.error})
        first = self._validation.examples[0]
        self._folder.save_sample(step, first.noisy, result.moments, state.denoiser.noise.usual_sigma(first.theta))
        is_best = result.error < state.best_error
        if is_best:
            state.keep(result.error, psnr)
            state.denoiser.provenance = preparation.provenance(
                self._config, self._data, step, {self.score: psnr}, state.start.provenance
            )
            self._folder.save_denoiser(state.denoiser)
        text = ", ".join(f"{name} {'withheld' if value is None else f'{value:.2f}'}" for name, value in values.items())
        tqdm.write(f"step {step}: validation {text}{' (best)' if is_best else ''}")
        if psnr is None and not self._is_withheld_said:
            self._is_withheld_said = True
            tqdm.write(
                f"note: {self.score} is withheld: {WITHHELD}. Check --noise. Models are still compared, by the squared "
                "error behind it."
            )

    def _tell_of_other_noise(self, unit: float) -> None:
        """Say so if the noise of the held-out images is not what was declared, and what that means."""
        found = self._validation.noise_range
        if found is None:
            return
        low, high = (level * unit for level in found)
        tqdm.write(
            f"warning: --noise {self._config.noise} does not fit the held-out images, whose sigma goes from about "
            f"{low:.3g} to {high:.3g} (in the files' own units): it depends on the brightness, is clipped, or is "
            "another one. So sure_psnr, which supposes it, is withheld, and models are compared by the noise that was "
            "measured (measured_psnr)."
        )

    def _measure_again(self) -> None:
        """Measure the denoiser that an earlier version chose, by what decides now."""
        state, path = self._state, self._folder.denoiser_path
        state.keep(float("inf"), None)
        if path.exists():
            now = state.denoiser.network.get_weights()
            state.denoiser.network.set_weights(loading.load(path).network.get_weights())
            result = self._validation()
            state.denoiser.network.set_weights(now)
            state.keep(result.error, result.values[self.score])
        tqdm.write(
            "note: this run was begun by an earlier version, which compared models by a PSNR that was cut off at "
            "100 dB: the one that it kept was measured anew"
        )
