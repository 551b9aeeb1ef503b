"""What `bsdenoise app` can be told."""

from dataclasses import dataclass
from pathlib import Path

from bsdenoise.config.flags import Count, Port, Switch


@dataclass(frozen=True)
class AppConfig:
    """Open a local web page that denoises the images dropped on it.

    It shows noisy and denoised side by side, the uncertainty and the estimated PSNR, and gives the denoised file in
    full bit depth. It needs the extra `app`: pip install 'bsdenoise[app]'. Nothing leaves the machine, except to the
    server of --server. Ctrl-C ends it.
    """

    #: A .keras file, a run folder that holds denoiser.keras, or the name of a preset. Default: the presets for noise
    #: of unknown strength, one for RGB images and one for all others.
    model: Path | None = None

    #: Address of a server that holds the model, http://HOST:PORT or grpc://HOST:PORT, also with the name of the model
    #: as `bsdenoise denoise --server` takes it.
    server: str | None = None

    #: Port of the page; 0 picks a free one.
    port: Port = 7860

    #: Address that the page listens on. Whoever reaches it can use the page: there is no password.
    host: str = "127.0.0.1"

    #: Most pixels that a file may hold, all images of a stack together.
    max_pixels: Count = 2**26

    #: Do not open the page in the browser.
    no_browser: Switch = False
