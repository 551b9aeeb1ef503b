#!/bin/bash
# Succeeds if a version of the model is being served. The image has no curl, so bash asks by itself.
#
# The status answers 200 even while a model is loading, so its text decides. Settings, as of the entrypoint: REST_PORT,
# HEALTH_MODEL (by default MODEL_NAME), HEALTH_TIMEOUT_SECONDS (5).
set -euo pipefail

port=${REST_PORT:-8501}
model=${HEALTH_MODEL:-${MODEL_NAME:-denoiser}}

unhealthy() {
  printf 'unhealthy: %s\n' "$1" >&2
  exit 1
}

{ exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || unhealthy "nothing listens on port $port"
trap '' PIPE # a server that hangs up is unhealthy, too
printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$model" >&3 2>/dev/null || true
# What came before the time was up counts too: not every server closes the connection after its answer.
answer=$(timeout "${HEALTH_TIMEOUT_SECONDS:-5}" cat <&3 2>/dev/null || true)
[[ $answer =~ \"state\":[[:space:]]*\"AVAILABLE\" ]] || unhealthy "no version of $model is available"
echo "healthy: $model"
