"""Section "sound": from an image to sound, against Riffusion's algorithm and against librosa's."""

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.harness import Figures, Measured, Missing, Ratio, Side, Step, compare, memory_share, speed, timed
from benchmarks.history import Section

if TYPE_CHECKING:
    from torch import Tensor

    from riff.spectrogram.config import SpectrogramConfig

COLUMNS = 512  # of Riffusion's images, 5.12 s
SECONDS = 5.12
_PLACE = "benchmarks.sound:"


def sound_section(*, repeat: int, qualities: tuple[str, ...] = ("default",)) -> Section:
    """Play one image of Riffusion's geometry, and one of librosa's, both ways.

    Args:
        repeat: pairs that are measured once all are warm.
        qualities: of riff's, ``"default"`` first.
    """
    section = Section("sound", figures={"music_s": SECONDS})
    sides = {f"riff_{quality}": Side(f"{_PLACE}riff_way", {"quality": quality}) for quality in qualities}
    try:
        found = compare(sides | {"riffusion": Side(f"{_PLACE}riffusions_way")}, repeat)
        section.ratios.extend(_against_riffusion(found))
    except Missing as missing:
        section.notes.append(f"Riffusion's algorithm is not measured, for torchaudio cannot be imported ({missing}).")
        found = compare(sides, repeat)
    for name, side in found.items():
        section.figures.update(_figures(name, side))
    pair = {name: Side(_PLACE + way) for name, way in (("riff", "riff_as_librosa"), ("librosa", "librosas_way"))}
    found = compare(pair, repeat)
    meaning = "as fast as librosa's mel_to_audio, at its own parameters"
    section.ratios.append(speed("sound_speed_to_librosa", meaning, found["riff"], found["librosa"]))
    section.figures.update(_figures("riff_as_librosa", found["riff"]) | _figures("librosa", found["librosa"]))
    section.notes.append("mel_error_db is how far the sound's mel is from the asked one; less is better.")
    return section


def riff_way(*, quality: str) -> Step:
    """riff's side at Riffusion's parameters: ``seconds`` and ``mel_error_db``."""
    from riff.spectrogram.config import SpectrogramConfig
    from riff.spectrogram.inversion.waveform import mel_to_waveform

    config = SpectrogramConfig.riffusion()
    mel = _asked(config, COLUMNS)

    def step(_: int) -> Figures:
        found: Figures = {}
        with timed(found):
            sound = mel_to_waveform(mel, config, quality=quality)  # type: ignore[arg-type]
        return found | {"mel_error_db": _error(sound, mel, config)}

    return step


def riffusions_way() -> Step:
    """Riffusion's side, its exact parameters: windows of 4,410 samples in transforms of 17,640."""
    from benchmarks.baselines import riffusions_algorithm
    from riff.spectrogram.config import SpectrogramConfig

    config = SpectrogramConfig.riffusion()
    mel, invert = _asked(config, COLUMNS), riffusions_algorithm(config, config.hop_length)

    def step(number: int) -> Figures:
        if number == 0:  # nothing in it is compiled or kept, so a few columns warm it up
            invert(mel[..., :32])
            return {}
        found: Figures = {}
        with timed(found):
            sound = invert(mel)
        return found | {"mel_error_db": _error(sound, mel, config)}

    return step


def riff_as_librosa() -> Step:
    """riff's default at librosa's parameters."""
    from benchmarks.baselines import LIBROSAS
    from riff.spectrogram.inversion.waveform import mel_to_waveform

    mel = _asked(LIBROSAS, None)

    def step(_: int) -> Figures:
        found: Figures = {}
        with timed(found):
            sound = mel_to_waveform(mel, LIBROSAS)
        return found | {"mel_error_db": _error(sound, mel, LIBROSAS)}

    return step


def librosas_way() -> Step:
    """librosa's side."""
    from benchmarks.baselines import LIBROSAS, librosas_sound

    mel = _asked(LIBROSAS, None)

    def step(number: int) -> Figures:
        if number == 0:
            librosas_sound(mel[..., :8])
            return {}
        found: Figures = {}
        with timed(found):
            sound = librosas_sound(mel)
        return found | {"mel_error_db": _error(sound, mel, LIBROSAS)}

    return step


def _asked(config: "SpectrogramConfig", columns: int | None) -> "Tensor":
    """The mel (1, M, N) of the tune, as an image of 8 bits holds it."""
    from benchmarks.tune import tune
    from riff.spectrogram.image import image_to_mel, mel_to_image
    from riff.spectrogram.mel import waveform_to_mel

    mel = waveform_to_mel(tune(SECONDS, config.sample_rate), config)[..., :columns]
    return image_to_mel((mel_to_image(mel, config) * 255.0).round() / 255.0, config)


def _error(sound: "Tensor", mel: "Tensor", config: "SpectrogramConfig") -> float:
    """Spectral convergence in decibels, after the best gain."""
    import math

    from riff.spectrogram.mel import waveform_to_mel

    found = waveform_to_mel(sound, config)
    columns = min(found.shape[-1], mel.shape[-1])
    found, asked = found[..., :columns], mel[..., :columns]
    gain = (found * asked).sum() / found.square().sum().clamp(min=1e-20)
    return 20.0 * math.log10(float((gain * found - asked).norm() / asked.norm().clamp(min=1e-20)) + 1e-9)


def _against_riffusion(found: dict[str, Measured]) -> list[Ratio]:
    ours, theirs = found["riff_default"], found["riffusion"]
    ratios = [
        speed(f"sound_speed_{name.removeprefix('riff_')}", f"as fast as Riffusion's algorithm, image to sound, "
              f"quality {name.removeprefix('riff_')}", side, theirs)
        for name, side in found.items()
        if name != "riffusion"
    ]  # fmt: skip
    return ratios + memory_share("sound_memory", "of the memory that Riffusion's algorithm takes", ours, theirs)


def _figures(name: str, side: Measured) -> Figures:
    found: Figures = {f"{name}_s": median(side.values("seconds"))}
    found[f"{name}_processor_s"] = median(side.values("processor_seconds"))
    found[f"{name}_mel_error_db"] = median(side.values("mel_error_db"))
    return found | {f"{name}_peak_memory_mib": side.peak_memory_mib}
