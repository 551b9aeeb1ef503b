"""What `bsdenoise serve` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Ge, Le

from bsdenoise.config.flags import Count, Duration, NonNegative, Port, Seconds


@dataclass(frozen=True)
class ServeConfig:
    """Serve exported models over REST and gRPC as TF-Serving does, for development and tests.

    In production use TF-Serving's container (docker/ and serving/ in the repository). New versions are served as soon
    as they are loaded; the old one serves until then. SIGTERM or Ctrl-C ends it after the requests that it has taken,
    a second one at once. A tensorflow_model_server on the PATH is started instead.
    """

    #: Folder of versions, as bsdenoise export writes it: sub-folders with plain numbers as names, the newest is served.
    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR]")] = None

    #: Name of the model in URLs and requests.
    name: str = "denoiser"

    #: Labels for versions, such as stable=1 canary=2. These versions are served and no others.
    labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL=VERSION [LABEL=VERSION ...]")] = ()

    #: Instead of DIR, a ModelServerConfig as TF-Serving reads it: several models, policies for versions, labels.
    models_config: Path | None = None

    #: Address to listen on. Whoever reaches it can use the models: there is no password.
    host: str = "127.0.0.1"

    #: Port for gRPC; 0 picks a free one.
    grpc_port: Port = 8500

    #: Port for REST and for metrics at /monitoring/prometheus/metrics; 0 picks a free one.
    rest_port: Port = 8501

    #: Requests computed at once. By default one for each core, but no more than one for each 4 GiB of memory, which an
    #: image of 16 megapixels takes.
    concurrency: Count | None = None

    #: Requests that may wait for that; more are refused at once.
    queue: NonNegative = 128

    #: Seconds that a request may take, the wait included. TF-Serving's own default over REST is 30, in which two cores
    #: do not denoise a photograph of 12 megapixels.
    timeout: Seconds = 300.0

    #: Largest body over REST in MiB, unpacked.
    max_body: Count = 100

    #: Largest message over gRPC in MiB.
    max_message: Annotated[int, Ge(1), Le(2048)] = 2048

    #: Most pixels (batch × height × width) of one request. By default what the model itself takes.
    max_pixels: Count | None = None

    #: Seconds between looks at the folders.
    poll: Seconds = 1.0

    #: Seconds after which a version that could not be loaded is tried again, five times.
    retry: Seconds = 60.0

    #: Seconds that requests may still take when the server is stopped.
    grace: Duration = 30.0

    #: The server of this package, TF-Serving's own from the PATH, or whichever is there, preferably TF-Serving's.
    implementation: Literal["auto", "local", "tensorflow_model_server"] = "auto"
