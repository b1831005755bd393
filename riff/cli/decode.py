"""``riff decode``: spectrogram pictures become sound."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.checks import BPM_RANGE
from riff.cli.arguments import QUALITIES, SOUND_SUFFIXES, number
from riff.cli.batch import add_files, run_batch
from riff.errors import RiffError

if TYPE_CHECKING:
    from riff.config import SpectrogramConfig

READS = (".png", ".jpg", ".jpeg", ".webp")
_EXAMPLES = """\
examples:
  riff decode song.png -o song.wav
  riff decode og_beat.png --preset riffusion --quality best -o beat.flac
  riff decode pictures/ --format mp3 -o sounds/"""


def add_verb(verbs: Any, everywhere: argparse.ArgumentParser) -> None:
    """Add this verb's parser to ``verbs``, with the options that every verb has."""
    parser = verbs.add_parser(
        "decode",
        parents=[everywhere],
        help="turn spectrogram pictures into sound",
        description="Play spectrogram pictures: riff's, Riffusion's, or any that is as high as its preset says. "
        "Prints each path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_files(parser, "PICTURE", ", ".join(SOUND_SUFFIXES))
    parser.add_argument("--preset", choices=["riff", "riffusion"], help="what the picture is, whatever it says itself")
    parser.add_argument(
        "--bpm", type=number(*BPM_RANGE), help="tempo, on the beats grid; default what the picture says"
    )
    parser.add_argument("--quality", choices=QUALITIES, default="default", help="how much work; default 'default'")
    parser.add_argument("--loop", action="store_true", help="let the end lead back into the start")
    parser.add_argument("--seed", type=number(0, 2**63 - 1, whole=True), default=0, help="of the phases; default 0")
    formats = [suffix[1:] for suffix in SOUND_SUFFIXES]
    parser.add_argument("--format", choices=formats, default="wav", help="of sounds in a folder; default wav")


def run(args: argparse.Namespace) -> None:
    """Play every input."""
    args.suffix = f".{args.format}"

    def work(source: Path, target: Path, force: bool, _: int) -> dict[str, Any]:
        import torch

        from riff.audio import save_audio
        from riff.codec import Encoded, SpectrogramCodec
        from riff.image import read_png
        from riff.provenance import MACHINE_MADE, handed_on, sound_tags

        image, config, made = read_png(source)
        config = _config(config, args.preset)
        found = Encoded.read(image, config, made, bpm=args.bpm, name=str(source))
        if config.grid == "beats" and found.bpm is None:
            raise RiffError(f"{source} lies on the beats grid and does not say its tempo; give --bpm")
        waveform = SpectrogramCodec(config).decode(
            image,
            bpm=found.bpm,
            max_value=found.max_value,
            quality=args.quality,
            loop=args.loop,
            generator=torch.Generator().manual_seed(args.seed),
        )
        tags = sound_tags(handed_on(made, "decode")) if made.get("origin") == MACHINE_MADE else None
        save_audio(target, waveform, config.sample_rate, metadata=tags, force=force)
        bpm = found.bpm
        first = bpm if bpm is None or isinstance(bpm, float) else float(bpm.bpm_at(0.0))
        return {"duration_s": waveform.shape[-1] / config.sample_rate, "bpm": first}

    run_batch(args, work, reads=READS, writes=SOUND_SUFFIXES)


def _config(found: "SpectrogramConfig", preset: str | None) -> "SpectrogramConfig":
    """The picture's own config, or the preset's with as many mels and channels as the picture has."""
    if preset is None:
        return found
    own = type(found).riffusion(stereo=found.channels == 2) if preset == "riffusion" else type(found)()
    return dataclasses.replace(own, n_mels=found.n_mels, channels=found.channels)
