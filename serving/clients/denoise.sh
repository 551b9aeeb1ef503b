#!/usr/bin/env bash
# Denoises a PNG or JPEG through a model server with curl alone:
#
#   denoise.sh http://127.0.0.1:8501/v1/models/denoiser noisy.png denoised.png
#
# The result is a PNG of 8 or 16 bits, as the input. What follows goes to curl: --cacert ca.pem, --header "…".
set -euo pipefail

if (($# < 3)); then
  echo "usage: ${0##*/} http://HOST:PORT/v1/models/NAME IMAGE RESULT.png [CURL OPTIONS]" >&2
  exit 2
fi
url=$1 image=$2 result=$3
shift 3
[[ -r $image ]] || { echo "$image: cannot be read" >&2; exit 2; }

# Base64 goes through pipes: as an argument, a large image would be too long.
answer=$(
  {
    printf '{"signature_name": "encoded", "instances": [{"image_bytes": {"b64": "'
    base64 <"$image" | tr -d '\n'
    printf '"}}]}'
  } | curl --silent --show-error --max-time 300 --header 'Content-Type: application/json' --data-binary @- \
    "$@" "$url:predict"
)
encoded=$(tr -d '\n ' <<<"$answer" | sed -n 's/.*"b64":"\([^"]*\)".*/\1/p')
if [[ -z $encoded ]]; then
  printf '%s: %s\n' "$url" "${answer:0:1000}" >&2
  exit 1
fi
base64 -d <<<"$encoded" >"$result"
