#!/usr/bin/env bash
# Trains on several nodes under SLURM, and goes on by itself after a failure, a preemption, or the time limit:
#
#   sbatch --nodes 4 --gpus-per-node 8 cluster/slurm.sh SOURCE RUN [flags of bsdenoise-train…]
#   sbatch --nodes 2 --gpus-per-node 8 cluster/slurm.sh /shared/photos /shared/runs/first --noise gaussian:25 --batch 64
#
# One task per node, which uses all GPUs of its node. SOURCE and RUN must be seen by all nodes.
#
#   BSDENOISE_VENV    virtual environment to activate on every node (default: what is on the PATH)
#   BSDENOISE_IMAGE   Apptainer image to run in instead, such as one built from docker/training.Dockerfile
#   MAX_RESTARTS      how often the job is put back into the queue (default 20)
#SBATCH --job-name=bsdenoise
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Three minutes before the time limit the tasks (not this script, which would need B:) get SIGTERM: they save and end.
#SBATCH --signal=TERM@180
set -uo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch cluster/slurm.sh SOURCE RUN [flags of bsdenoise-train]" >&2
    exit 2
fi
source_=$1 run=$2
shift 2
restarts=${SLURM_RESTART_COUNT:-0}
bad_input=${SLURM_SUBMIT_DIR:-$PWD}/bsdenoise-${SLURM_JOB_ID:-0}.bad-input
rm -f "$bad_input"

command=(bsdenoise-train)
if [ -n "${BSDENOISE_IMAGE:-}" ]; then
    # Bind mounts beyond the home folder: APPTAINER_BIND=/shared.
    command=(apptainer exec --nv "$BSDENOISE_IMAGE" bsdenoise-train)
elif [ -n "${BSDENOISE_VENV:-}" ]; then
    command=("$BSDENOISE_VENV/bin/bsdenoise-train")
fi

# srun reports the highest exit code of all tasks. One task's "bad input" (2) hides behind another's "lost a worker" (138), so
# it leaves a mark. Tasks end by themselves when one is lost; --wait is for those that do not. Ranks must go node by node.
# shellcheck disable=SC2016  # expanded by the tasks
task='"$@"; code=$?; if [ $code -eq 2 ]; then touch "$BAD_INPUT"; fi; exit $code'
BAD_INPUT=$bad_input srun --distribution=block --wait=120 --label \
    bash -c "$task" bash "${command[@]}" "$source_" --out "$run" "$@"
code=$?

if [ -e "$bad_input" ]; then
    rm -f "$bad_input"
    echo "not started again: a worker refused its input (see above)" >&2
    exit 2
fi
# 128 and above: told to stop, killed, or another worker lost. The same command goes on from the last checkpoint.
if [ $code -ge 128 ] && [ "$restarts" -lt "${MAX_RESTARTS:-20}" ]; then
    echo "ended with $code; back into the queue, restart $((restarts + 1))" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
