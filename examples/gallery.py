"""The clips of the README: each is written as OGG, with its spectrogram in colour beside it."""

from pathlib import Path

from riff import Clip, RiffPipeline
from riff.spectrogram.display import paint

PROMPTS = {
    "lofi": ("lo-fi hip hop, mellow electric piano", 84, 7),
    "funk": ("funky disco, slap bass, rhythm guitar", 118, 3),
    "techno": ("driving techno, acid bass", 130, 5),
    "bossa": ("bossa nova, nylon guitar, relaxed", 120, 2),
    "orchestra": ("orchestral strings, heroic", 96, 4),
}


def save(clip: Clip, folder: Path, name: str) -> list[Path]:
    """Write ``name.ogg`` and ``name.webp``."""
    picture = folder / f"{name}.webp"
    paint(clip.image, width=512, height=256).save(picture, quality=80)
    return [clip.save(folder / f"{name}.ogg", overwrite=True), picture]


def main(folder: str = "examples/gallery", steps: int = 20) -> list[Path]:
    """Write all clips into ``folder`` and return their paths."""
    pipe, target = RiffPipeline.from_pretrained(), Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (prompt, bpm, seed) in PROMPTS.items():
        clip = pipe(prompt, bpm=bpm, bars=4, loop=True, seed=seed, num_inference_steps=steps).clips[0]
        paths += save(clip, target, name)
    walk = pipe.walk(["church bells", "techno"], seeds=[7, 8], bars=8, bpm=[90, 126], num_inference_steps=steps)
    return paths + save(walk, target, "walk")


if __name__ == "__main__":
    for path in main():
        print(path)
