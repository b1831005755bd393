"""A sentence, a sound file and its picture; then the same seed with one word changed."""

from pathlib import Path

from riff import RiffPipeline


def main(folder: str = ".", steps: int = 20) -> list[Path]:
    """Write first.wav, first.png and second.wav into ``folder`` and return their paths."""
    pipe = RiffPipeline.from_pretrained()
    first = pipe("mellow lo-fi hip hop with electric piano", bpm=84, seed=7, num_inference_steps=steps).clips[0]
    second = pipe("mellow lo-fi hip hop with vibraphone", bpm=84, seed=7, num_inference_steps=steps).clips[0]
    target = Path(folder)
    return [
        first.save(target / "first.wav"),
        first.save(target / "first.png"),
        second.save(target / "second.wav"),
    ]


if __name__ == "__main__":
    for path in main():
        print(path)
