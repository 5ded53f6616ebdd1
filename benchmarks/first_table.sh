#!/usr/bin/env bash
# The runs behind the README's first table: five seeds each, from the root of a clone after `make run` or its set-up and
#     .venv/bin/recbole-diffmm convert diffmm <the published folder> --name tiktok --out dataset/
# `--protocol=paper` reports the validation-selected epoch and, labelled, the test-selected one from the same training.
# Give names of models to run only those: benchmarks/first_table.sh EASE BPR
set -euo pipefail
run=${RECBOLE_DIFFMM:-.venv/bin/recbole-diffmm}
declare -A settings=(
  [DiffMM]="--config_files=properties/published/DiffMM-tiktok.yaml --epochs=50 --stopping_step=50"
  [LightGCN]="--config_files=properties/tuned/LightGCN-tiktok.yaml --epochs=60"
  [BPR]="--config_files=properties/tuned/BPR-tiktok.yaml"
  [EASE]="--config_files=properties/tuned/EASE-tiktok.yaml"
)
for model in ${@:-DiffMM LightGCN BPR EASE}; do
  for seed in 1 2 3 4 5; do
    # shellcheck disable=SC2086  # settings are several words
    $run run --model="$model" --dataset=tiktok --protocol=paper --seed=$seed --results_dir=results/tiktok-va \
      ${settings[$model]}
  done
done
