"""A recording remixed, made longer, and with a bar replaced: python examples/edit_a_recording.py loop.wav [bpm]."""

import sys
from pathlib import Path

from riff import RiffPipeline


def main(audio: str, folder: str = ".", bpm: float | None = None, steps: int = 20) -> list[Path]:
    """Write remix.wav, longer.wav, filled.wav and bass.wav into ``folder`` and return their paths.

    Without ``bpm`` the beats of the recording are found; a file that riff made says its tempo itself.
    """
    pipe = RiffPipeline.from_pretrained()
    common = {"bpm": bpm, "seed": 7, "num_inference_steps": steps}
    clips = {
        "remix": pipe.remix(audio, "church organ", strength=0.6, **common),
        "longer": pipe.extend(audio, "funk with slap bass", bars=4, **common),
        # Bar 1 is the second one. Outside it every sample is the recording's.
        "filled": pipe.inpaint(audio, "drum fill", mask_start_bar=1, mask_end_bar=2, **common),
        # Only what lies below 200 Hz, in two bars.
        "bass": pipe.inpaint(audio, "deep sub bass", mask_start_bar=0, mask_end_bar=2, high_hz=200, **common),
    }
    return [clip.save(Path(folder) / f"{name}.wav") for name, clip in clips.items()]


if __name__ == "__main__":
    for path in main(sys.argv[1], bpm=float(sys.argv[2]) if len(sys.argv) > 2 else None):
        print(path)
