"""Denoises a PNG or JPEG through a model server over REST, with Python's standard library alone.

python denoise_rest.py http://127.0.0.1:8501/v1/models/denoiser noisy.png denoised.png [--sigma 0.098]
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_SECONDS = 300


def denoise(url: str, image: bytes, sigma: float | None = None) -> bytes:
    """Sends an image file and gets a PNG of the same bit depth.

    Args:
        url: http://HOST:PORT/v1/models/NAME, and /versions/V or /labels/L if wanted.
        image: The bytes of a PNG or JPEG.
        sigma: Standard deviation of the noise as a fraction of full scale; without, the model's own.
    """
    instance: dict = {"image_bytes": {"b64": base64.b64encode(image).decode()}}
    signature = "encoded"
    if sigma is not None:
        instance["sigma"] = sigma
        signature = "encoded_with_sigma"
    body = json.dumps({"signature_name": signature, "instances": [instance]}).encode()
    request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        return base64.b64decode(json.load(response)["predictions"][0]["b64"])


def main() -> int:
    """Reads the command line, denoises, and says what went wrong."""
    parser = argparse.ArgumentParser(description="Denoises a PNG or JPEG through a model server over REST.")
    parser.add_argument("url", help="http://HOST:PORT/v1/models/NAME")
    parser.add_argument("image", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--sigma", type=float, help="as a fraction of full scale: 25 grey levels are 0.098")
    args = parser.parse_args()
    try:
        args.result.write_bytes(denoise(args.url, args.image.read_bytes(), args.sigma))
    except urllib.error.HTTPError as error:  # the server's own words are in the body
        print(f"{args.url}: {error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{args.url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
