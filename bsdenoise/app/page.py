"""The page itself: its controls, and what happens when they are used."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from bsdenoise.app import noise_plot, orientation, style, texts, views
from bsdenoise.app.denoising import Workshop, result_name
from bsdenoise.app.facts import Denoised, Facts
from bsdenoise.app.steps import Tell

TITLE = "bsdenoise"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")  # not those of folders, which no browser uploads
MODEL_QUEUE = "model"  # what has this name waits for each other: one computation at a time
QUEUE_SIZE = 32  # computations that may wait
CLEAN_EVERY = 300  # seconds between looks for old files
KEEP_FOR = 3600  # seconds that uploads and results are kept; all go when the page ends


def build(workshop: Workshop, about: str, folder: Path) -> gr.Blocks:
    """Make the page.

    Args:
        workshop: What does the work.
        about: A sentence on which model denoises, and where.
        folder: Gradio's folder for temporary files. Results are written there, so that Gradio serves them as they are
            and removes them in time.
    """
    name, has_posterior = str(workshop.denoiser.method.name), bool(workshop.denoiser.has_posterior)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY, KEEP_FOR)) as page:
        gr.Markdown(f"# {TITLE}")
        gr.HTML(texts.paragraph(about) + texts.paragraph(texts.about_method(name, has_posterior)), elem_id="about")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                noisy = gr.File(label="Noisy image: PNG, JPEG, TIFF or .npy", file_types=list(SUFFIXES), height=150)
                sigma = gr.Textbox(
                    label="Noise standard deviation σ",
                    info=texts.about_sigma(None, has_posterior),
                    max_lines=1,
                    interactive=has_posterior,
                    elem_id="sigma",
                )
                number = gr.Slider(1, 2, 1, step=1, label="Image of the stack that is shown", visible=False)
                learns = gr.Checkbox(
                    label="Learn from the image first",
                    info=texts.ABOUT_LEARNING,
                    visible=workshop.can_learn,
                    elem_id="learns",
                )
                start = gr.Button("Denoise", variant="primary", interactive=False, elem_id="start")
                message = gr.HTML(elem_id="message", visible=False)
                facts = gr.HTML(elem_id="facts", visible=False)
                noise = gr.HTML(elem_id="noise", visible=False)
                download = gr.DownloadButton("Download the denoised file", interactive=False, elem_id="download")
            with gr.Column(scale=2, min_width=300):
                slider = gr.ImageSlider(
                    label="Noisy | denoised",
                    format="png",
                    interactive=False,
                    max_height=style.MAX_HEIGHT,
                    buttons=["fullscreen"],  # not its download, which is what the screen shows and no more
                    elem_id="slider",
                )
                uncertainty = gr.Image(
                    label="Uncertainty",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    visible=has_posterior,
                    elem_id="uncertainty",
                )
                gr.HTML(texts.legend(), visible=has_posterior, elem_id="legend")
        shown = [message, facts, slider, uncertainty]
        handlers = Handlers(workshop, folder)
        taken = noisy.change(
            handlers.take, noisy, [*shown, noise, sigma, number, start, download], show_progress="hidden"
        )
        taken.then(handlers.noise, noisy, noise, trigger_mode="always_last", show_progress="hidden")
        # One bar, not one on each of the results.
        work: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": MODEL_QUEUE, "show_progress_on": slider}
        for trigger in (start.click, sigma.submit):
            trigger(handlers.denoise, [noisy, sigma, number, learns], [*shown, download], trigger_mode="once", **work)
        number.change(
            handlers.look, [noisy, sigma, number, download, learns], shown, trigger_mode="always_last", **work
        )
    page.queue(max_size=QUEUE_SIZE)
    return page


class Handlers:
    """What happens when the controls are used: updates for the page out, never an exception."""

    def __init__(self, workshop: Workshop, folder: Path):
        self.workshop = workshop
        self.folder = folder

    def take(self, name: str | None) -> tuple[Any, ...]:
        """Look at a file that was dropped, or taken away: nothing is computed yet, and what was shown is gone."""
        facts, error = None, ""
        if name is not None:
            try:
                facts = self.workshop.inspect(Path(name))
            except Exception as reason:
                error = texts.sentence(reason, Path(name))
        count = facts.count if facts else 1
        return (
            *(_alert(error), _text(texts.describe(facts) if facts else ""), None, None),
            _text(noise_plot.looking() if facts and self.workshop.tells_noise else ""),
            gr.update(info=texts.about_sigma(facts, bool(self.workshop.denoiser.has_posterior))),
            gr.update(value=1, maximum=max(count, 2), visible=count > 1),
            gr.update(interactive=facts is not None),
            gr.update(value=None, interactive=False),
        )

    def noise(self, name: str | None) -> Any:
        """Show what noise a file has; nothing of a file that cannot be used, which `take` says."""
        try:
            found = None if name is None else self.workshop.noise(Path(name))
        except (ValueError, OSError):
            found = None
        return _text("" if found is None else noise_plot.drawn(found))

    def denoise(
        self,
        name: str | None,
        sigma: str,
        number: int,
        learns: bool = False,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - by this default Gradio knows what to pass
    ) -> tuple[Any, ...]:
        """Denoise the file, show one image of it, and offer the result."""
        if name is None:
            return *_failed("Please drop an image first."), gr.skip()

        path, index = Path(name), int(number) - 1
        target = Path(tempfile.mkdtemp(dir=self.folder)) / result_name(path)
        try:
            done = self.workshop.denoise(path, target, _given(sigma), index, _teller(progress), learns)
        except Exception as reason:  # whatever it is, the user gets one sentence
            shutil.rmtree(target.parent, ignore_errors=True)
            return *_failed(texts.sentence(reason, path)), gr.update(value=None, interactive=False)
        return *_show(*done, index), gr.update(value=str(target), interactive=True)

    def look(
        self,
        name: str | None,
        sigma: str,
        number: int,
        result: str | None,
        learns: bool = False,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - as above
    ) -> tuple[Any, ...]:
        """Show another image of a stack that has been denoised."""
        if name is None or result is None:
            return (gr.skip(),) * 4
        path, index = Path(name), int(number) - 1
        try:
            return _show(*self.workshop.look(path, _given(sigma), index, _teller(progress), learns), index)
        except Exception as reason:
            return _failed(texts.sentence(reason, path))


def _given(sigma: str) -> str | None:
    return sigma.strip() or None


def _teller(progress: gr.Progress) -> Tell:
    """Make what tells the page's progress bar of each step."""
    return lambda step: progress(step.share, desc=texts.progress(step))


def _show(facts: Facts, result: Denoised, seconds: float, index: int) -> tuple[Any, ...]:
    limits = views.windows(result.denoised, facts.is_picture, facts.no_data)
    drawn = [views.picture(image, limits) for image in (result.noisy, result.denoised)]
    drawn += [] if result.ratio is None else [views.uncertainty(result.ratio)]
    noisy, denoised, *uncertainty = (orientation.upright(image, facts.orientation) for image in drawn)
    text = _text(texts.describe_result(facts, result, seconds, index))
    return _alert(""), text, (noisy, denoised), uncertainty[0] if uncertainty else None


def _failed(message: str) -> tuple[Any, ...]:
    return _alert(message), gr.skip(), None, None


def _alert(message: str) -> Any:
    return _text(texts.alert(message))


def _text(html: str) -> Any:
    return gr.update(value=html, visible=bool(html))  # hidden where empty, else it leaves a gap
