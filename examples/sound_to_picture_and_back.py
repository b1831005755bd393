"""Any sound becomes a Riffusion picture and a sound again: the rungs of the ladder, one call each."""

import sys
from pathlib import Path

from riff import (
    SpectrogramConfig,
    image_to_mel,
    load_audio,
    mel_to_image,
    mel_to_waveform,
    read_png,
    save_audio,
    waveform_to_mel,
    write_png,
)
from riff.audio.loudness import peak_normalize


def main(audio: str, folder: str = ".") -> tuple[Path, Path]:
    """Write picture.png and again.wav into ``folder`` and return their paths."""
    config = SpectrogramConfig.riffusion()
    waveform, _ = load_audio(audio, sample_rate=config.sample_rate, channels=config.channels)
    picture = Path(folder) / "picture.png"
    write_png(picture, mel_to_image(waveform_to_mel(waveform, config), config), config)
    image, config, _ = read_png(picture)
    again = peak_normalize(mel_to_waveform(image_to_mel(image, config), config))
    return picture, save_audio(Path(folder) / "again.wav", again, config.sample_rate)


if __name__ == "__main__":
    for path in main(sys.argv[1]):
        print(path)
