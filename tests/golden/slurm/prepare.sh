#!/bin/bash
#SBATCH --job-name=prepare-1-0
#SBATCH --comment=modelyard
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --no-requeue

folder='/shared/night run'"'"'s/jobs/prepare-1-0'
if [ -e "$folder/cancelled" ] || [ -e "$folder/verdict.json" ]; then exit 0; fi
if [ ! -e "$folder/claim" ]; then printf "%s %s %s\n" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" "$SLURMD_NODENAME" > "$folder/allocation"; fi
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; unset SLURM_EXPORT_ENV
exec env \
  MODELYARD_JOB_KEY=prepare-1-0 \
  MODELYARD_STEP=prepare \
  MODELYARD_CPUS=1 \
  /usr/bin/python3 -I -S '/shared/night run'"'"'s/jobs/.slurm/wrapper.py' "$folder"
