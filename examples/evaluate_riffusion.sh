#!/usr/bin/env bash
# Riffusion v1, and models of riff's beside it, on MusicCaps: rendered alike, measured alike.
#
#   REFERENCE=musiccaps-audio/ examples/evaluate_riffusion.sh
#   MODELS="riffusion/riffusion-model-v1 riff-mini runs/mine/model" COUNT=200 examples/evaluate_riffusion.sh
#
# Needs riff (python -m pip install .), a GPU, the Hugging Face Hub, and for the distances a folder with recordings to be
# like. MusicCaps (CC BY-SA 4.0) is a list of captions and places in videos; its recordings are not on the hub with it, so
# REFERENCE is a folder of 10 s clips that you have by other means. Without REFERENCE the text score and obedience are
# measured and no distance. Each model takes about 2 s a clip on an A100; a second run does only what is missing.
#
# Settings, all by environment variables:
#   MODELS      models, with spaces between: hub ids, folders, riff-mini; MODEL+LORA for a LoRA on a model
#               (default riffusion/riffusion-model-v1)
#   REFERENCE   folder of recordings (default none)
#   OUT         where everything goes (default runs/musiccaps)
#   COUNT       prompts, drawn from all of them by a fixed seed (default all 5,521, as published figures have it)
#   DURATION    seconds of each clip (default 10, MusicCaps' own)
#   STEPS       denoising steps (default 50, Riffusion's)
#   DEVICE      cuda, mps or cpu (default the fastest there is)
#   CAPTIONS    musiccaps-public.csv, if it is at hand (default fetched from the hub, google/MusicCaps)
#   EMBEDDINGS  of riff eval (default "clap encodec tagger"); their names stand in the names of the scores
#   DOWNLOAD    1 lets weights of CLAP and EnCodec be fetched (default), 0 not
#   VGGISH      weights of VGGish: a file, "fetch" (default; 290 MB from torchvggish's releases), or "none"
#   WORKERS     processes of riff eval (default one a core)
#
# Leaves OUT/<model>/clips/, OUT/<model>/report/ (index.html, report.json) and OUT/<model>/vggish.json. To see them on the
# scoreboard: mkdir -p benchmarks/evaluations/<model>, copy report.json and vggish.json there, then
# python -m training.measure.scoreboard.
set -euo pipefail

MODELS=${MODELS:-riffusion/riffusion-model-v1}
REFERENCE=${REFERENCE:-}
OUT=${OUT:-runs/musiccaps}
COUNT=${COUNT:-5521}
DURATION=${DURATION:-10}
STEPS=${STEPS:-50}
DEVICE=${DEVICE:-}
CAPTIONS=${CAPTIONS:-}
EMBEDDINGS=${EMBEDDINGS:-clap encodec tagger}
DOWNLOAD=${DOWNLOAD:-1}
VGGISH=${VGGISH:-fetch}
WORKERS=${WORKERS:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '== %s\n' "$*" >&2; }

if [ -n "$REFERENCE" ] && [ ! -d "$REFERENCE" ]; then
    echo "REFERENCE=$REFERENCE is no folder; give one with recordings, or leave it out" >&2
    exit 2
fi
mkdir -p "$OUT"

if [ ! -s "$OUT/prompts.jsonl" ]; then
    say "prompts of MusicCaps"
    python "$here/musiccaps_prompts.py" "$OUT/prompts.jsonl" --count "$COUNT" ${CAPTIONS:+--captions "$CAPTIONS"}
fi

for model in $MODELS; do
    base=${model%%+*}
    lora=${model#"$base"}
    lora=${lora#+}
    name=$(printf '%s' "$model" | tr -c 'A-Za-z0-9._\n' '-' | sed 's/^[-.]*//')
    place=$OUT/$name
    mkdir -p "$place"

    say "$model: rendering into $place/clips"
    # Exit code 2 is that some captions cannot be played, such as one with a tempo of 300; riff has named them.
    status=0
    riff render --prompts "$OUT/prompts.jsonl" -o "$place/clips" --model "$base" ${lora:+--lora "$lora"} \
        --duration "$DURATION" --steps "$STEPS" --seed 0 ${DEVICE:+--device "$DEVICE"} >"$place/rendered.txt" || status=$?
    if [ "$status" -ne 0 ] && { [ "$status" -ne 2 ] || ! compgen -G "$place/clips/*.wav" >/dev/null; }; then
        exit "$status"
    fi

    say "$model: riff eval"
    embeddings=()
    for embedding in $EMBEDDINGS; do embeddings+=(--embedding "$embedding"); done
    [ "$DOWNLOAD" = 0 ] || embeddings+=(--download)
    riff eval "$place/clips" ${REFERENCE:+--reference "$REFERENCE"} "${embeddings[@]}" ${WORKERS:+--workers "$WORKERS"} \
        --force -o "$place/report"
    cp "$place/report/report.json" "$place/report.json"

    if [ -n "$REFERENCE" ] && [ "$VGGISH" != none ]; then
        say "$model: Fréchet audio distance on VGGish"
        python "$here/vggish_fad.py" "$place/clips" "$REFERENCE" --weights "$VGGISH" -o "$place/vggish.json"
    fi
    say "$model: $place/report/index.html"
done
