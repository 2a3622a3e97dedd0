#!/bin/bash
#SBATCH --job-name=array-0123
#SBATCH --comment=modelyard
#SBATCH --partition=cpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=2
#SBATCH --no-requeue
#SBATCH --array=0-2

key=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" '/shared/night run'"'"'s/jobs/.slurm/array-0123.keys')
exec /bin/bash '/shared/night run'"'"'s/jobs'/"$key"/job.sh
