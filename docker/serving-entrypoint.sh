#!/bin/bash
# Starts TensorFlow-Serving with settings that suit images. All further arguments go to the server, and win.
#
# Settings are environment variables; an empty one counts as not set:
#
#   MODEL_NAME               denoiser   name of the model; its versions are in MODEL_BASE_PATH/MODEL_NAME
#   MODEL_BASE_PATH          /models
#   MODEL_CONFIG_FILE                   a models.config, which then says what is served; it is read again while serving
#   MODEL_CONFIG_POLL_SECONDS    10     how often
#   FILE_SYSTEM_POLL_SECONDS      1     how often new versions are looked for
#   GRPC_PORT                  8500
#   REST_PORT                  8501     also status and metrics
#   REQUESTS_AT_ONCE                    images computed at once; computed from the memory, at most one per CPU
#   REQUESTS_WAITING             64     images that may wait for that; beyond, requests get UNAVAILABLE (503)
#   MAX_IMAGES_PER_REQUEST       32
#   MEMORY_MIB                          memory of the container; read from its control group
#   MEMORY_RESERVE_MIB         2048     of that, for the server, the models and the requests that wait
#   MEMORY_PER_REQUEST_MIB     4300     what computing one image takes at most: see serving/README.md
#   GPU_MEMORY_PERCENT            0     share of each GPU's memory for this server; 0 lets TensorFlow choose
#   CPUS                                threads of the computation; read from the control group
#   REST_TIMEOUT_SECONDS        120
#   GRPC_MAX_MESSAGE_MIB       1024
#   MONITORING_CONFIG_FILE    /etc/bsdenoise/monitoring.config
#   BATCHING_PARAMETERS_FILE            a file to use as it is, instead of the one that is computed
#   TLS_KEY_FILE, TLS_CERTIFICATE_FILE  PEM files: gRPC with TLS. REST has none: put a proxy before it.
#   TLS_CLIENT_CA_FILE                  a PEM file: only clients with a certificate of this authority are served
#   RUNTIME_FOLDER             /tmp     where the computed settings are written
#   TF_CUDNN_USE_AUTOTUNE               0 or 1, TensorFlow's own: whether each new size of image is tuned for, on GPUs
#
# Settings that make no sense are refused with one line and exit code 2.
set -euo pipefail

readonly MIB=$((1024 * 1024))
readonly SPARE_THREADS=16 # for status, metrics and health while all others wait for a computation

refuse() {
  printf 'entrypoint: %s\n' "$1" >&2
  exit 2
}

# Refuses a setting that is no whole number from $2 to $3.
require_integer() {
  local -r name=$1 lowest=$2 highest=$3 value=${!1}
  local -r sentence="$name must be a whole number from $lowest to $highest. Received: '$value'."
  [[ $value =~ ^[0-9]{1,9}$ ]] || refuse "$sentence"
  local -r number=$((10#$value)) # 010 is ten
  ((number >= lowest && number <= highest)) || refuse "$sentence"
  printf -v "$name" '%d' "$number"
}

require_file() {
  [[ -f ${!1} && -r ${!1} ]] || refuse "$1 must be a file that can be read. Received: '${!1}'."
}

# Prints what the first of the files says, if that is a number: control groups of version 2 and 1.
number_in() {
  local file text
  for file in "$@"; do
    if [[ -r $file ]]; then
      read -r text _ <"$file" || true
      [[ $text =~ ^[0-9]{1,19}$ ]] && printf '%s\n' "$text"
      return 0
    fi
  done
}

# SYSTEM_ROOT is for tests, which bring files of their own.
memory_mib() {
  local total limit
  total=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' "${SYSTEM_ROOT:-}/proc/meminfo")
  limit=$(number_in "${SYSTEM_ROOT:-}/sys/fs/cgroup/memory.max" \
    "${SYSTEM_ROOT:-}/sys/fs/cgroup/memory/memory.limit_in_bytes")
  if [[ -n $limit ]] && ((limit / MIB < total)); then
    total=$((limit / MIB))
  fi
  printf '%d\n' "$total"
}

# TensorFlow would take one thread for each CPU of the machine, whatever the container may use.
cpus() {
  local count quota period=''
  count=$(nproc)
  if [[ -r ${SYSTEM_ROOT:-}/sys/fs/cgroup/cpu.max ]]; then
    read -r quota period <"${SYSTEM_ROOT:-}/sys/fs/cgroup/cpu.max" || true
    if [[ $quota =~ ^[0-9]+$ && $period =~ ^[1-9][0-9]*$ ]]; then
      quota=$(((quota + period - 1) / period))
      ((quota < 1)) && quota=1
      ((quota < count)) && count=$quota
    fi
  fi
  printf '%d\n' "$count"
}

# Prints the memory of the smallest GPU; nothing where there is none.
gpu_memory_mib() {
  command -v nvidia-smi >/dev/null || return 0
  { nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null || true; } |
    { grep -E '^[0-9]+$' || true; } | sort -n | head -n 1
}

requests_at_once() {
  local count=$(((MEMORY_MIB - MEMORY_RESERVE_MIB) / MEMORY_PER_REQUEST_MIB)) gpu
  gpu=$(gpu_memory_mib)
  if [[ -n $gpu ]]; then
    ((GPU_MEMORY_PERCENT > 0)) && gpu=$((gpu * GPU_MEMORY_PERCENT / 100))
    ((gpu / MEMORY_PER_REQUEST_MIB < count)) && count=$((gpu / MEMORY_PER_REQUEST_MIB))
  fi
  ((count > CPUS)) && count=$CPUS
  if ((count < 1)); then
    printf 'entrypoint: %d MiB are less than the reserve of %d and %d for one request; %s\n' "$MEMORY_MIB" \
      "$MEMORY_RESERVE_MIB" "$MEMORY_PER_REQUEST_MIB" 'large images may exhaust the memory.' >&2
    count=1
  fi
  printf '%d\n' "$count"
}

# Each image is a computation of its own: nothing is merged, and a request of several images is split into them.
write_batching_parameters() {
  cat >"$1" <<PARAMETERS
max_batch_size { value: $MAX_IMAGES_PER_REQUEST }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 1 }
batch_timeout_micros { value: 0 }
num_batch_threads { value: $REQUESTS_AT_ONCE }
max_enqueued_batches { value: $REQUESTS_WAITING }
thread_pool_name { value: "images" }
PARAMETERS
}

# Prints a PEM file as the text of a protocol buffer's string.
quoted_pem() {
  local -r text=$(<"${!1}")
  [[ $text == *'-----BEGIN '* && $text != *\"* && $text != *\\* ]] || refuse "$1 must be a PEM file. Received: '${!1}'."
  printf '"%s\\n"' "${text//$'\n'/\\n}"
}

write_ssl_config() {
  local key certificate authority
  key=$(quoted_pem TLS_KEY_FILE) || exit
  certificate=$(quoted_pem TLS_CERTIFICATE_FILE) || exit
  (
    umask 077 # it holds the key
    printf 'server_key: %s\nserver_cert: %s\n' "$key" "$certificate" >"$1"
  )
  if [[ -n ${TLS_CLIENT_CA_FILE:-} ]]; then
    authority=$(quoted_pem TLS_CLIENT_CA_FILE) || exit
    printf 'custom_ca: %s\nclient_verify: true\n' "$authority" >>"$1"
  fi
}

check_model_folder() {
  local -r folder=$MODEL_BASE_PATH/$MODEL_NAME
  [[ $MODEL_NAME =~ ^[A-Za-z0-9_.-]+$ ]] ||
    refuse "MODEL_NAME must be made of letters, digits, _, . and -, because it stands in URLs. Received: '$MODEL_NAME'."
  [[ ! -e $folder/saved_model.pb ]] ||
    refuse "$folder is itself a version of a model. Expected the folder of versions that holds it."
  if [[ $folder == /* && ! -d $folder ]]; then
    printf 'entrypoint: %s is not there yet; the server waits for it.\n' "$folder" >&2
  fi
}

: "${MODEL_NAME:=denoiser}" "${MODEL_BASE_PATH:=/models}"
: "${MODEL_CONFIG_POLL_SECONDS:=10}" "${FILE_SYSTEM_POLL_SECONDS:=1}"
: "${GRPC_PORT:=8500}" "${REST_PORT:=8501}"
: "${REQUESTS_WAITING:=64}" "${MAX_IMAGES_PER_REQUEST:=32}"
: "${MEMORY_RESERVE_MIB:=2048}" "${MEMORY_PER_REQUEST_MIB:=4300}" "${GPU_MEMORY_PERCENT:=0}"
: "${REST_TIMEOUT_SECONDS:=120}" "${GRPC_MAX_MESSAGE_MIB:=1024}"
: "${MONITORING_CONFIG_FILE:=/etc/bsdenoise/monitoring.config}" "${RUNTIME_FOLDER:=/tmp}"
: "${MEMORY_MIB:=$(memory_mib)}" "${CPUS:=$(cpus)}"

require_integer MODEL_CONFIG_POLL_SECONDS 1 86400
require_integer FILE_SYSTEM_POLL_SECONDS 1 86400
require_integer GRPC_PORT 1 65535
require_integer REST_PORT 1 65535
((GRPC_PORT != REST_PORT)) || refuse "GRPC_PORT and REST_PORT must differ. Received: $GRPC_PORT for both."
require_integer REQUESTS_WAITING 1 10000
require_integer MAX_IMAGES_PER_REQUEST 1 10000
((MAX_IMAGES_PER_REQUEST <= REQUESTS_WAITING)) || # a request waits with all of its images at once
  refuse "MAX_IMAGES_PER_REQUEST must be at most REQUESTS_WAITING, $REQUESTS_WAITING. Received: $MAX_IMAGES_PER_REQUEST."
require_integer MEMORY_MIB 1 999999999
require_integer MEMORY_RESERVE_MIB 0 999999999
require_integer MEMORY_PER_REQUEST_MIB 1 999999999
require_integer GPU_MEMORY_PERCENT 0 100
require_integer CPUS 1 4096
require_integer REST_TIMEOUT_SECONDS 1 86400
require_integer GRPC_MAX_MESSAGE_MIB 1 2047 # gRPC counts bytes with 31 bits
: "${REQUESTS_AT_ONCE:=$(requests_at_once)}"
require_integer REQUESTS_AT_ONCE 1 1024
[[ ${TF_CUDNN_USE_AUTOTUNE:-1} =~ ^[01]$ ]] ||
  refuse "TF_CUDNN_USE_AUTOTUNE must be 0 or 1. Received: '$TF_CUDNN_USE_AUTOTUNE'."
require_file MONITORING_CONFIG_FILE
[[ -d $RUNTIME_FOLDER && -w $RUNTIME_FOLDER ]] ||
  refuse "RUNTIME_FOLDER must be a folder that can be written. Received: '$RUNTIME_FOLDER'."

threads=$((REQUESTS_AT_ONCE + REQUESTS_WAITING + SPARE_THREADS))
message_bytes=$((GRPC_MAX_MESSAGE_MIB * MIB))
arguments=(
  "--port=$GRPC_PORT"
  "--rest_api_port=$REST_PORT"
  "--rest_api_timeout_in_ms=$((REST_TIMEOUT_SECONDS * 1000))"
  "--rest_api_num_threads=$threads"
  "--grpc_max_threads=$threads"
  "--grpc_channel_arguments=grpc.max_receive_message_length=$message_bytes,grpc.max_send_message_length=$message_bytes"
  "--enable_grpc_healthcheck_service=true"
  "--file_system_poll_wait_seconds=$FILE_SYSTEM_POLL_SECONDS"
  "--monitoring_config_file=$MONITORING_CONFIG_FILE"
  "--tensorflow_intra_op_parallelism=$CPUS"
  "--tensorflow_inter_op_parallelism=$CPUS"
  "--enable_batching=true"
)

if [[ -n ${BATCHING_PARAMETERS_FILE:-} ]]; then
  require_file BATCHING_PARAMETERS_FILE
else
  BATCHING_PARAMETERS_FILE=$RUNTIME_FOLDER/batching_parameters.txt
  write_batching_parameters "$BATCHING_PARAMETERS_FILE"
fi
arguments+=("--batching_parameters_file=$BATCHING_PARAMETERS_FILE")

if [[ -n ${MODEL_CONFIG_FILE:-} ]]; then
  require_file MODEL_CONFIG_FILE
  arguments+=(
    "--model_config_file=$MODEL_CONFIG_FILE"
    "--model_config_file_poll_wait_seconds=$MODEL_CONFIG_POLL_SECONDS"
    "--allow_version_labels_for_unavailable_models=true" # new labels only; without, labels stop the server at its start
  )
else
  check_model_folder
  arguments+=("--model_name=$MODEL_NAME" "--model_base_path=$MODEL_BASE_PATH/$MODEL_NAME")
fi

if [[ -n ${TLS_KEY_FILE:-}${TLS_CERTIFICATE_FILE:-}${TLS_CLIENT_CA_FILE:-} ]]; then
  : "${TLS_KEY_FILE:=}" "${TLS_CERTIFICATE_FILE:=}"
  require_file TLS_KEY_FILE
  require_file TLS_CERTIFICATE_FILE
  if [[ -n ${TLS_CLIENT_CA_FILE:-} ]]; then require_file TLS_CLIENT_CA_FILE; fi
  write_ssl_config "$RUNTIME_FOLDER/ssl.config"
  arguments+=("--ssl_config_file=$RUNTIME_FOLDER/ssl.config")
fi

if ((GPU_MEMORY_PERCENT > 0)); then
  arguments+=("--per_process_gpu_memory_fraction=$((GPU_MEMORY_PERCENT / 100)).$(printf '%02d' $((GPU_MEMORY_PERCENT % 100)))")
fi

printf 'entrypoint: %d images at once, %d waiting; %d MiB of memory, %d CPUs\n' \
  "$REQUESTS_AT_ONCE" "$REQUESTS_WAITING" "$MEMORY_MIB" "$CPUS" >&2
# With exec the server has this script's process, so that signals reach it.
exec tensorflow_model_server "${arguments[@]}" "$@"
