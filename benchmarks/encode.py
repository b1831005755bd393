"""Section "encode": from sound to image, in memory against torchaudio's transforms, and from file to file."""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.harness import Figures, Measured, Missing, Side, Step, compare, memory_share, speed, timed
from benchmarks.history import Section

_PLACE = "benchmarks.encode:"


def encode_section(*, repeat: int, seconds: float = 60.0) -> Section:
    """Draw a tune.

    Args:
        repeat: pairs that are measured once all are warm.
        seconds: length of the tune.
    """
    arguments = {"seconds": seconds}
    ours = {
        "riff": Side(f"{_PLACE}riff_way", arguments | {"preset": "riff"}),
        "riffusions_pictures": Side(f"{_PLACE}riff_way", arguments | {"preset": "riffusion"}),
        "file_to_file": Side(f"{_PLACE}files", arguments),
    }
    section = Section("encode", figures={"music_s": seconds})
    try:
        found = compare(ours | {"torchaudio": Side(f"{_PLACE}torchaudios_way", arguments)}, repeat)
        mine, theirs = found["riffusions_pictures"], found["torchaudio"]
        meaning = "as fast as Riffusion's transforms in torchaudio, sound to Riffusion's image"
        section.ratios.append(speed("encode_speed", meaning, mine, theirs))
        section.ratios.extend(memory_share("encode_memory", "of the memory that these take", mine, theirs))
    except Missing as missing:
        section.notes.append(f"torchaudio is not measured, for it cannot be imported ({missing}).")
        found = compare(ours, repeat)
    for name, side in found.items():
        section.figures.update(_figures(name, side, seconds))
    section.notes.append("music_per_second is seconds of sound for each second of work.")
    return section


def riff_way(*, seconds: float, preset: str) -> Step:
    """riff's side: a waveform in memory to an image in memory."""
    from benchmarks.tune import BPM, tune
    from riff.spectrogram.codec import SpectrogramCodec
    from riff.spectrogram.config import SpectrogramConfig

    config = SpectrogramConfig() if preset == "riff" else SpectrogramConfig.riffusion()
    codec, sound = SpectrogramCodec(config), tune(seconds, config.sample_rate)
    bpm = BPM if config.grid == "beats" else None

    def step(_: int) -> Figures:
        found: Figures = {}
        with timed(found):
            codec.encode(sound, bpm=bpm)
        return found

    return step


def torchaudios_way(*, seconds: float) -> Step:
    """The other side: torchaudio's spectrogram and mel scale at Riffusion's parameters, then the same amplitudes."""
    from benchmarks.baselines import torchaudios_mel
    from benchmarks.tune import tune
    from riff.spectrogram.config import SpectrogramConfig
    from riff.spectrogram.image import mel_to_image

    config = SpectrogramConfig.riffusion()
    sound, draw = tune(seconds, config.sample_rate), torchaudios_mel(config)

    def step(_: int) -> Figures:
        found: Figures = {}
        with timed(found):
            mel_to_image(draw(sound), config)
        return found

    return step


def files(*, seconds: float) -> Step:
    """A WAV to a PNG of riff-mini's geometry, as ``riff encode`` does it once it is loaded."""
    from benchmarks.tune import BPM, tune
    from riff.audio.io import load_audio, save_audio
    from riff.spectrogram.codec import SpectrogramCodec
    from riff.spectrogram.config import SpectrogramConfig
    from riff.spectrogram.png import write_png

    config = SpectrogramConfig()
    codec = SpectrogramCodec(config)
    folder = tempfile.TemporaryDirectory()
    source = Path(folder.name) / "tune.wav"
    save_audio(source, tune(seconds, config.sample_rate), config.sample_rate)

    def step(_: int) -> Figures:
        found: Figures = {}
        with timed(found):  # the folder lives as long as this function, which names it below
            waveform, _rate = load_audio(source, sample_rate=config.sample_rate, channels=1)
            encoded = codec.encode(waveform, bpm=BPM)
            write_png(Path(folder.name) / "tune.png", encoded.image, config, metadata=encoded.metadata)
        return found

    return step


def _figures(name: str, side: Measured, seconds: float) -> Figures:
    spent = median(side.values("seconds"))
    return {
        f"{name}_music_per_second": seconds / spent,
        f"{name}_processor_s": median(side.values("processor_seconds")),
        f"{name}_peak_memory_mib": side.peak_memory_mib,
    }
