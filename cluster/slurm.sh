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
said=$(mktemp)
trap 'rm -f "$said"' EXIT

command=(bsdenoise-train)
if [ -n "${BSDENOISE_IMAGE:-}" ]; then
    # Bind mounts beyond the home folder: APPTAINER_BIND=/shared.
    command=(apptainer exec --nv "$BSDENOISE_IMAGE" bsdenoise-train)
elif [ -n "${BSDENOISE_VENV:-}" ]; then
    command=("$BSDENOISE_VENV/bin/bsdenoise-train")
fi

# SLURM signals every process of a step, and a step ends when its tasks do: so the training is the task itself, and no shell
# around it, which would end at once. Tasks end by themselves when one is lost; --wait is for those that do not. Ranks must
# go node by node.
start=(srun --distribution=block --wait=120 --label "${command[@]}" "$source_" --out "$run" "$@")
# shellcheck disable=SC2069  # stderr alone goes through the pipe
{ "${start[@]}" 2>&1 >&3 | tee "$said" >&2; } 3>&1
code=$?  # by pipefail that of srun

# srun's own exit code is the highest of all tasks: one's "bad input" (2) hides behind another's "lost a worker" (138). But
# it says on stderr how each task ended.
if [ "$code" -eq 2 ] || grep -q 'srun: error: .* Exited with exit code 2$' "$said"; then
    echo "not started again: a worker refused its input (see above)" >&2
    exit 2
fi
# 128 and above: told to stop, killed, or another worker lost. The same command goes on from the last checkpoint.
if [ $code -ge 128 ] && [ "$restarts" -lt "${MAX_RESTARTS:-20}" ]; then
    echo "ended with $code; back into the queue, restart $((restarts + 1))" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
