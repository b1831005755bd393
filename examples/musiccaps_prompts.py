"""MusicCaps' captions as a list for ``riff render --prompts``.

    python examples/musiccaps_prompts.py prompts.jsonl --count 1000

A part of them is drawn by a fixed seed, so that every model gets the same ones.
"""

import argparse
import csv
import json
import random
from pathlib import Path

from riff.utils.files import write_text


def read_captions(path: Path) -> list[dict[str, str]]:
    """``name`` (the place in a video) and ``prompt`` of every row of musiccaps-public.csv that has a caption."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"ytid", "caption"} <= set(rows[0]):
        raise SystemExit(f"{path} has no columns ytid and caption; give musiccaps-public.csv of google/MusicCaps")
    told = [(row["ytid"], " ".join((row["caption"] or "").split())) for row in rows]
    return [{"name": name, "prompt": prompt} for name, prompt in told if prompt]


def choose(items: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """``count`` of the items, always the same, in their own order."""
    if count >= len(items):
        return items
    places = sorted(random.Random("riff").sample(range(len(items)), count))
    return [items[place] for place in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=5521)
    parser.add_argument("--captions", type=Path, help="musiccaps-public.csv; default fetched from google/MusicCaps")
    arguments = parser.parse_args()
    path = arguments.captions
    if path is None:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download("google/MusicCaps", "musiccaps-public.csv", repo_type="dataset"))
    items = choose(read_captions(path), arguments.count)
    write_text(arguments.out, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


if __name__ == "__main__":
    main()
