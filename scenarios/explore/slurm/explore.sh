#!/bin/sh
# One shard of a search for each task of a job array. The tasks differ by SLURM_ARRAY_TASK_ID alone, and need
# nothing of each other:
#
#   search=$(sbatch --parsable --array=0-7 explore.sh CASE GUEST --strategy exhaustive --append queue=filo)
#   sbatch --dependency="afterok:$search" --wrap "vmm merge results/$search.*.json"
#
# A task that is requeued goes on from its checkpoint. The nodes need vmm, /dev/kvm, and a directory that all see; they must be alike, since the machine begins
# elsewhere on another CPU.
#SBATCH --job-name=explore
#SBATCH --cpus-per-task=1
#SBATCH --requeue
set -eu

case=$1
guest=$2
shift 2
mkdir -p results
exec "${VMM:-vmm}" explore "$case" "$guest" "$@" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --result "results/$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID.json" \
    --checkpoint "results/$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID.checkpoint"
