#!/bin/bash
# Stands in for tensorflow_model_server: notes its process and arguments, and ends at SIGTERM with a code of its own.
trap 'kill "$sleeper" 2>/dev/null; exit 43' TERM
printf '%s\0' "$@" >"$STAND_IN_FOLDER/arguments"
printf '%s' "${TF_CUDNN_USE_AUTOTUNE-unset}" >"$STAND_IN_FOLDER/autotune"
if [[ -n ${STAND_IN_WAITS:-} ]]; then
  sleep 60 &
  sleeper=$!
  echo "$$" >"$STAND_IN_FOLDER/pid"
  wait "$sleeper"
fi
