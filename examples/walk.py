"""From church bells to techno with no join and every beat in its place; and a loop of the same way there and back."""

from pathlib import Path

from riff import RiffPipeline


def main(folder: str = ".", steps: int = 20, bars_per_step: int = 8) -> list[Path]:
    """Write walk.wav, walk.png and round.wav into ``folder`` and return their paths."""
    pipe = RiffPipeline.from_pretrained()
    prompts = ["church bells, slow and sacred", "driving techno, acid bass"]
    walk = pipe.walk(prompts, seeds=7, bars_per_step=bars_per_step, bpm=[90, 126], num_inference_steps=steps)
    # There and back: this file can be repeated for ever, since its last sample leads into its first.
    around = pipe.walk(prompts, 7, bars_per_step=bars_per_step, bpm=110, loop=True, num_inference_steps=steps)
    target = Path(folder)
    return [
        walk.save(target / "walk.wav"),
        walk.save(target / "walk.png"),  # plays by its own tempo: riff decode walk.png -o again.wav
        around.save(target / "round.wav"),
    ]


if __name__ == "__main__":
    for path in main():
        print(path)
