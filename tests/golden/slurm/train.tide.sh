#!/bin/bash
#SBATCH --job-name=train-tide-1-0
#SBATCH --comment=modelyard
#SBATCH --partition=gpu,gpu-long
#SBATCH --account=climate@h100
#SBATCH --qos=normal
#SBATCH --constraint=a100|h100
#SBATCH --reservation=maintenance_2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=1536M
#SBATCH --gres=gpu:a100:4
#SBATCH --time=62
#SBATCH --requeue
#SBATCH --exclude=n[1-3]
#SBATCH --exclusive

folder='/shared/night run'"'"'s/jobs/train-tide-1-0'
if [ -e "$folder/cancelled" ] || [ -e "$folder/verdict.json" ]; then exit 0; fi
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ "$(cut -d' ' -f1 "$folder/allocation")" = "$SLURM_JOB_ID" ] &&
  ! grep -qs withdrawn "$folder/claim"; then
  aside="$folder/start.$SLURM_RESTART_COUNT"; mkdir -p "$aside"
  for kept in claim started.json exit.json heartbeat; do mv -f "$folder/$kept" "$aside" 2>/dev/null; done
fi
if [ ! -e "$folder/claim" ]; then printf "%s %s %s\n" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" "$SLURMD_NODENAME" > "$folder/allocation"; fi
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; unset SLURM_EXPORT_ENV
module load cuda/12.4
source /shared/env/bin/activate
exec env \
  MODELYARD_SEED=42 \
  LR=0.1 \
  'NOTE=it'"'"'s $(id) `id` "x" \ *
second line' \
  MODELYARD_JOB_KEY=train-tide-1-0 \
  MODELYARD_STEP=train/tide \
  MODELYARD_CPUS=8 \
  /usr/bin/python3 -I -S '/shared/night run'"'"'s/jobs/.slurm/wrapper.py' "$folder"
