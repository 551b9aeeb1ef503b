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
#   GRPC_PORT                  8500     0: no gRPC, and all requests at once are REST's
#   REST_PORT                  8501     also status and metrics
#   REQUESTS_AT_ONCE                    requests computed at once, of both kinds; from the memory, at most one per CPU or two
#   GRPC_AT_ONCE                        of these, over gRPC; half of them
#   REST_SPARE_THREADS            0     threads of REST beside those: behind bsdenoise guard, so that status stays quick
#   MEMORY_MIB                          memory of the container; read from its control group
#   MEMORY_RESERVE_MIB         2048     of that, for the server, the models and the requests that wait
#   MEMORY_PER_REQUEST_MIB              what one request takes at most; from the serving.json of the versions
#   GPU_MEMORY_PERCENT            0     share of each GPU's memory for this server; 0 lets TensorFlow choose
#   CPUS                                threads of the computation; read from the control group
#   REST_TIMEOUT_SECONDS        120
#   GRPC_MAX_MESSAGE_MIB       1024
#   MONITORING_CONFIG_FILE    /etc/bsdenoise/monitoring.config
#   TLS_KEY_FILE, TLS_CERTIFICATE_FILE  PEM files: gRPC with TLS. REST has none: put a proxy before it.
#   TLS_CLIENT_CA_FILE                  a PEM file: only clients with a certificate of this authority are served
#   RUNTIME_FOLDER             /tmp     where the computed settings are written, and links to the versions that are whole
#   TF_CUDNN_USE_AUTOTUNE               0 or 1, TensorFlow's own: whether each new size of image is tuned for, on GPUs
#
# Requests are never merged: batching cannot be switched on, neither here nor by arguments. A version that is not whole is
# not shown to the server.
#
# Settings that make no sense are refused with one line and exit code 2.
set -euo pipefail

readonly MIB=$((1024 * 1024))
readonly OWN_THREADS=1          # REST's listener takes one of its threads, and gRPC keeps one that listens
readonly USUAL_REQUEST_MIB=4608 # of versions that do not say: a compact network and 16 megapixels
readonly LOAD_THREADS=2         # a version that cannot be loaded must not keep others waiting
readonly LOAD_RETRIES=2
readonly LOAD_RETRY_SECONDS=5

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
  local count=$(((MEMORY_MIB - MEMORY_RESERVE_MIB) / MEMORY_PER_REQUEST_MIB)) gpu most=$CPUS
  gpu=$(gpu_memory_mib)
  if [[ -n $gpu ]]; then
    ((GPU_MEMORY_PERCENT > 0)) && gpu=$((gpu * GPU_MEMORY_PERCENT / 100))
    ((gpu / MEMORY_PER_REQUEST_MIB < count)) && count=$((gpu / MEMORY_PER_REQUEST_MIB))
  fi
  ((most < 2)) && most=2
  ((count > most)) && count=$most
  printf '%d\n' "$((count < 0 ? 0 : count))"
}

# Prints the number at a key of a version's description; nothing if it says none.
described() {
  if [[ -r $1 ]]; then
    sed -n -E 's/^ *"'"$2"'": ([0-9]{1,12}),?$/\1/p' "$1" | head -n 1
  fi
}

# Sets what one request takes at most, by the version that needs most. Of it, so much does not depend on max_pixels.
read_memory_per_request() {
  local file mib folder
  REQUEST_MIB=0 TILE_MIB='' BYTES_PER_PIXEL='' MAX_PIXELS=''
  while IFS= read -r folder; do
    for file in "$folder"/*/serving.json; do
      [[ ${file%/*} =~ /[0-9]+$ ]] || continue
      mib=$(described "$file" request_mib)
      if ((${mib:-0} > REQUEST_MIB)); then
        REQUEST_MIB=$mib TILE_MIB=$(described "$file" tile_mib)
        BYTES_PER_PIXEL=$(described "$file" bytes_per_pixel) MAX_PIXELS=$(described "$file" max_pixels)
      fi
    done
  done < <(model_folders)
  ((REQUEST_MIB > 0)) || REQUEST_MIB=$USUAL_REQUEST_MIB
}

# Prints the folders of versions that are served.
model_folders() {
  if [[ -n ${MODEL_CONFIG_FILE:-} ]]; then
    sed -n -E 's/^[^#]*base_path: *"([^"]*)".*$/\1/p' "$MODEL_CONFIG_FILE"
  else
    printf '%s\n' "$MODEL_BASE_PATH/$MODEL_NAME"
  fi
}

# Refuses limits that do not fit each other, and says which would.
require_memory_for() {
  local -r wanted=$1 reason=$2
  local cures="give the container $((MEMORY_RESERVE_MIB + wanted * MEMORY_PER_REQUEST_MIB)) MiB" room pixels
  if [[ -n $TILE_MIB && -n $BYTES_PER_PIXEL ]] && ((MEMORY_PER_REQUEST_MIB == REQUEST_MIB && BYTES_PER_PIXEL > 0)); then
    room=$(((MEMORY_MIB - MEMORY_RESERVE_MIB) / wanted - TILE_MIB - 1))
    ((room > 0)) && pixels=$((room * MIB / BYTES_PER_PIXEL)) && cures+=", or export with --max-pixels $pixels"
  fi
  ((wanted > 1)) && cures+=", or switch gRPC off with GRPC_PORT=0"
  refuse "$reason of up to ${MAX_PIXELS:-16777216} pixels takes $MEMORY_PER_REQUEST_MIB MiB, and of $MEMORY_MIB MiB \
$MEMORY_RESERVE_MIB are kept for the server: $cures."
}

# Batching of the server would merge requests, which then fail together, and a request that the graph refuses could
# be left waiting for ever and hold a thread.
refuse_batching() {
  local argument name
  for name in BATCHING_PARAMETERS_FILE ENABLE_BATCHING; do
    [[ -z ${!name:-} ]] || refuse "$name is no setting: requests are never merged. Received: '${!name}'."
  done
  for name in REQUESTS_WAITING MAX_IMAGES_PER_REQUEST; do
    [[ -z ${!name:-} ]] || printf 'entrypoint: %s has no effect any more: nothing waits in batches.\n' "$name" >&2
  done
  for argument in "$@"; do
    case $argument in
      --enable_batching=false | --enable_batching=0 | --enable_per_model_batching_parameters=false) ;;
      -enable_batching* | --enable_batching* | -batching_* | --batching_* | --*per_model_batching* | --platform_config_file*)
        refuse "$argument would let the server merge requests, which this image does not do. Leave it out."
        ;;
    esac
  done
}

# Versions that are whole. The server is shown links to them, because it ends if it finds a broken one at its start.

# Says what is missing of a version; nothing if it is whole.
fault_of_version() {
  local bad
  if [[ ! -s $1/saved_model.pb ]]; then
    echo 'saved_model.pb is missing'
  elif [[ -e $1/SHA256SUMS ]]; then
    bad=$(cd "$1" && LC_ALL=C sha256sum --check --strict --quiet SHA256SUMS 2>/dev/null | head -n 1) || true
    if ! (cd "$1" && sha256sum --check --strict --status SHA256SUMS 2>/dev/null); then
      bad=${bad%%: *}
      echo "${bad:-SHA256SUMS} is not what was exported"
    fi
  elif [[ -d $1/variables && ! (-s $1/variables/variables.index && -n $(find "$1/variables" -name '*.data-*' -size +0)) ]]; then
    echo 'its weights are not complete'
  fi
}

# Links new versions of a folder that are whole, and takes away the links to those that have gone.
show_versions() {
  local path name fault state
  for path in "$2"/*; do
    [[ ! -L $path || -d $path ]] || rm -f "$path" # renamed or removed
  done
  for name in "${!judged[@]}"; do
    [[ -d $1/$name ]] || unset "judged[$name]"
  done
  for path in "$1"/*/; do
    path=${path%/}
    name=${path##*/}
    [[ $name =~ ^[0-9]+$ && ! (${judged[$name]:-} == whole && -L $2/$name) ]] || continue
    state=$(find "$path" -printf '%T@ %s %P\n' 2>/dev/null | cksum) # of what is broken: it may still be on its way
    [[ ${judged[$name]:-} != "$state" ]] || continue
    fault=$(fault_of_version "$path")
    if [[ -z $fault ]]; then
      judged[$name]=whole
      ln -sfn "$path" "$2/$name"
    else
      judged[$name]=$state
      printf 'entrypoint: %s is left aside: %s\n' "$path" "$fault" >&2
    fi
  done
}

# Shows versions as they come, for as long as the other end of its input is open: until the server has ended.
watch_versions() {
  local code
  while true; do
    code=0
    read -r -t "$FILE_SYSTEM_POLL_SECONDS" _ || code=$?
    ((code > 128)) || return 0 # nothing more will come; otherwise the time is up
    show_versions "$1" "$2"
  done
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
: "${REST_SPARE_THREADS:=0}" "${MEMORY_RESERVE_MIB:=2048}" "${GPU_MEMORY_PERCENT:=0}"
: "${REST_TIMEOUT_SECONDS:=120}" "${GRPC_MAX_MESSAGE_MIB:=1024}"
: "${MONITORING_CONFIG_FILE:=/etc/bsdenoise/monitoring.config}" "${RUNTIME_FOLDER:=/tmp}"
: "${MEMORY_MIB:=$(memory_mib)}" "${CPUS:=$(cpus)}"

require_integer MODEL_CONFIG_POLL_SECONDS 1 86400
require_integer FILE_SYSTEM_POLL_SECONDS 1 86400
require_integer GRPC_PORT 0 65535
require_integer REST_PORT 1 65535
((GRPC_PORT != REST_PORT)) || refuse "GRPC_PORT and REST_PORT must differ. Received: $GRPC_PORT for both."
require_integer REST_SPARE_THREADS 0 64
require_integer MEMORY_MIB 1 999999999
require_integer MEMORY_RESERVE_MIB 0 999999999
require_integer GPU_MEMORY_PERCENT 0 100
require_integer CPUS 1 4096
require_integer REST_TIMEOUT_SECONDS 1 86400
require_integer GRPC_MAX_MESSAGE_MIB 1 2047 # gRPC counts bytes with 31 bits
if [[ -n ${MODEL_CONFIG_FILE:-} ]]; then
  require_file MODEL_CONFIG_FILE
else
  check_model_folder
fi
read_memory_per_request
: "${MEMORY_PER_REQUEST_MIB:=$REQUEST_MIB}"
require_integer MEMORY_PER_REQUEST_MIB 1 999999999
if [[ -z ${REQUESTS_AT_ONCE:-} ]]; then
  REQUESTS_AT_ONCE=$(requests_at_once)
  ((REQUESTS_AT_ONCE >= 1)) || require_memory_for 1 'One request'
  ((REQUESTS_AT_ONCE >= 2 || GRPC_PORT == 0)) || require_memory_for 2 'REST and gRPC need room for one request each; one'
fi
require_integer REQUESTS_AT_ONCE $((GRPC_PORT == 0 ? 1 : 2)) 1024
if ((GRPC_PORT == 0)); then
  GRPC_AT_ONCE=0
else
  : "${GRPC_AT_ONCE:=$((REQUESTS_AT_ONCE / 2))}"
  require_integer GRPC_AT_ONCE 1 $((REQUESTS_AT_ONCE - 1))
fi
REST_AT_ONCE=$((REQUESTS_AT_ONCE - GRPC_AT_ONCE))
[[ ${TF_CUDNN_USE_AUTOTUNE:-1} =~ ^[01]$ ]] ||
  refuse "TF_CUDNN_USE_AUTOTUNE must be 0 or 1. Received: '$TF_CUDNN_USE_AUTOTUNE'."
require_file MONITORING_CONFIG_FILE
[[ -d $RUNTIME_FOLDER && -w $RUNTIME_FOLDER ]] ||
  refuse "RUNTIME_FOLDER must be a folder that can be written. Received: '$RUNTIME_FOLDER'."

refuse_batching "$@"

arguments=(
  "--rest_api_port=$REST_PORT"
  "--rest_api_timeout_in_ms=$((REST_TIMEOUT_SECONDS * 1000))"
  "--rest_api_num_threads=$((REST_AT_ONCE + OWN_THREADS + REST_SPARE_THREADS))"
  "--enable_batching=false"
  "--num_load_threads=$LOAD_THREADS"
  "--max_num_load_retries=$LOAD_RETRIES"
  "--load_retry_interval_micros=$((LOAD_RETRY_SECONDS * 1000000))"
  "--file_system_poll_wait_seconds=$FILE_SYSTEM_POLL_SECONDS"
  "--monitoring_config_file=$MONITORING_CONFIG_FILE"
  "--tensorflow_intra_op_parallelism=$CPUS"
  "--tensorflow_inter_op_parallelism=$CPUS"
)

if ((GRPC_PORT == 0)); then
  arguments+=("--port=0" "--grpc_socket_path=$RUNTIME_FOLDER/grpc.socket") # the server wants one of the two
else
  message_bytes=$((GRPC_MAX_MESSAGE_MIB * MIB))
  channel=grpc.max_receive_message_length=$message_bytes,grpc.max_send_message_length=$message_bytes
  channel+=,grpc.max_concurrent_streams=$GRPC_AT_ONCE # of one connection; what is more waits in the client
  arguments+=(
    "--port=$GRPC_PORT"
    "--grpc_max_threads=$((GRPC_AT_ONCE + OWN_THREADS))"
    "--grpc_channel_arguments=$channel"
    "--enable_grpc_healthcheck_service=true"
  )
fi

if [[ -n ${TLS_KEY_FILE:-}${TLS_CERTIFICATE_FILE:-}${TLS_CLIENT_CA_FILE:-} ]]; then
  ((GRPC_PORT > 0)) || refuse "TLS is for gRPC, which GRPC_PORT=0 switches off. Leave TLS_KEY_FILE and the others out."
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

declare -A judged=() # what is known of each version, by its number
if [[ -n ${MODEL_CONFIG_FILE:-} ]]; then
  arguments+=(
    "--model_config_file=$MODEL_CONFIG_FILE"
    "--model_config_file_poll_wait_seconds=$MODEL_CONFIG_POLL_SECONDS"
    "--allow_version_labels_for_unavailable_models=true" # new labels only; without, labels stop the server at its start
  )
  while IFS= read -r folder; do
    for version in "$folder"/*/; do
      [[ ${version%/} =~ /[0-9]+$ ]] || continue
      fault=$(fault_of_version "${version%/}")
      [[ -z $fault ]] || printf 'entrypoint: %s must not be named in %s: %s.\n' "${version%/}" "$MODEL_CONFIG_FILE" "$fault" >&2
    done
  done < <(model_folders)
elif [[ $MODEL_BASE_PATH == /* ]]; then
  shown=$RUNTIME_FOLDER/models/$MODEL_NAME
  mkdir -p "$shown"
  show_versions "$MODEL_BASE_PATH/$MODEL_NAME" "$shown"
  arguments+=("--model_name=$MODEL_NAME" "--model_base_path=$shown")
  # The server holds the other end from here on.
  exec 9> >(watch_versions "$MODEL_BASE_PATH/$MODEL_NAME" "$shown" >/dev/null)
else # an address that only the server can read
  arguments+=("--model_name=$MODEL_NAME" "--model_base_path=$MODEL_BASE_PATH/$MODEL_NAME")
fi
while IFS= read -r file; do
  printf 'entrypoint: %s has no effect: requests are never merged.\n' "$file" >&2
done < <(model_folders | while IFS= read -r folder; do find "$folder" -maxdepth 3 -name batching_params.pbtxt 2>/dev/null; done)

printf 'entrypoint: at once %d requests over REST and %d over gRPC, %d MiB each; %d MiB of memory, %d CPUs\n' \
  "$REST_AT_ONCE" "$GRPC_AT_ONCE" "$MEMORY_PER_REQUEST_MIB" "$MEMORY_MIB" "$CPUS" >&2
# With exec the server has this script's process, so that signals reach it.
exec tensorflow_model_server "${arguments[@]}" "$@"
