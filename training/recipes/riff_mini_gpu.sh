#!/usr/bin/env bash
# riff-mini on one GPU with some 16 cores: the cores go on composing while the GPU trains, and every leg of the
# denoiser's training takes in what has been composed by then. Run from the checkout; each line can be repeated.
set -euo pipefail
out=${1:-runs/mini-gpu}
data=${2:-runs/data-gpu}
recipe=training/recipes/riff_mini_gpu.json
workers=$(($(nproc) > 2 ? $(nproc) - 2 : 1))

python -m training.recipes.dataset --out "$data" --pieces 60000 --heldout 600 --workers "$workers" 2>"$data.log" &
composer=$!
trap 'kill "$composer" 2>/dev/null || true' EXIT

shards() { find "$data/train" -name 'pictures-4-*.npy' 2>/dev/null | wc -l; }
python -m training.recipes.riff_mini text --recipe "$recipe" --out "$out"
while [ "$(shards)" -lt 20 ]; do sleep 2; done

python -m training.recipes.riff_mini vae --recipe "$recipe" --data "$data" --out "$out"
for step in 2000 4000 7000 10000 14000; do
    python -m training.recipes.riff_mini denoiser --recipe "$recipe" --data "$data" --out "$out" --until "$step"
done
python -m training.recipes.riff_mini decoder --recipe "$recipe" --data "$data" --out "$out"
python -m training.recipes.riff_mini obey --recipe "$recipe" --data "$data" --out "$out"
python -m training.recipes.riff_mini polish --recipe "$recipe" --data "$data" --out "$out"
python -m training.measure.riff_mini --model "$out/checkpoint-polished" --data "$data" --out "$out/report.json"
