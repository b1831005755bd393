"""A spectrogram config in the EXIF tags of Riffusion's pictures."""

import math
from collections.abc import Mapping
from typing import Any

from riff.config import SpectrogramConfig
from riff.errors import RiffError

EXIF_TAGS = {
    "SAMPLE_RATE": 11000,
    "STEREO": 11005,
    "STEP_SIZE_MS": 11010,
    "WINDOW_DURATION_MS": 11020,
    "PADDED_DURATION_MS": 11030,
    "NUM_FREQUENCIES": 11040,
    "MIN_FREQUENCY": 11050,
    "MAX_FREQUENCY": 11060,
    "POWER_FOR_IMAGE": 11070,
    "MAX_VALUE": 11080,
}


def config_to_exif(config: SpectrogramConfig, *, max_value: float | None = None) -> dict[int, int | float]:
    """The tags that have a meaning for ``config``: all of them for a power scale on the seconds grid.

    Args:
        config: what to describe. A column on the beats grid has no duration, and the decibel scale no power,
            so Riffusion refuses such a picture rather than misread it.
        max_value: mel magnitude of black on the power scale, if known.

    Returns:
        Tag number to value: whole numbers, but floats for the power, the maximum and what is not whole.
    """
    rate = config.sample_rate
    tags: dict[str, int | float] = {
        "SAMPLE_RATE": rate,
        "STEREO": int(config.channels == 2),
        "WINDOW_DURATION_MS": _milliseconds(config.win_length, rate),
        "PADDED_DURATION_MS": _milliseconds(config.n_fft, rate),
        "NUM_FREQUENCIES": config.n_mels,
        "MIN_FREQUENCY": _whole(config.f_min),
        "MAX_FREQUENCY": _whole(config.f_max),
    }
    if config.grid == "seconds":
        tags["STEP_SIZE_MS"] = _milliseconds(config.hop_length, rate)
    if config.amplitude == "power":
        tags["POWER_FOR_IMAGE"] = float(config.power)
        if max_value is not None:
            tags["MAX_VALUE"] = float(max_value)
    return {EXIF_TAGS[name]: value for name, value in tags.items()}


def exif_to_config(tags: Mapping[int, Any]) -> tuple[SpectrogramConfig, float | None] | None:
    """The inverse of :func:`config_to_exif` for Riffusion's pictures.

    Args:
        tags: tag number to value; numbers that are not Riffusion's are ignored.

    Returns:
        The config and the mel magnitude of black (None if not stored, or not a number greater than 0, as for
        a silent picture of Riffusion's); or None if there is no tag of Riffusion's at all.

    Raises:
        RiffError: some of the nine tags are missing, or a value is not a number or out of range.
    """
    values = {name: tags[number] for name, number in EXIF_TAGS.items() if number in tags}
    if not values:
        return None
    missing = [name for name in EXIF_TAGS if name not in values and name != "MAX_VALUE"]
    if missing:
        raise RiffError(f"its EXIF tags lack {', '.join(missing)}; make the picture anew")
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise RiffError(f"an EXIF tag of Riffusion's is not a number ({error}); make the picture anew") from error
    maximum = numbers.pop("MAX_VALUE", 0.0)
    if not all(math.isfinite(number) for number in numbers.values()):
        raise RiffError("an EXIF tag of Riffusion's is not finite; make the picture anew")
    # Durations are cut, not rounded, to samples: so does Riffusion.
    per_millisecond = numbers["SAMPLE_RATE"] / 1000.0
    lengths = {name: int(round(numbers[name] * per_millisecond, 6)) for name in numbers if name.endswith("_MS")}
    config = SpectrogramConfig(
        sample_rate=int(numbers["SAMPLE_RATE"]),
        n_fft=lengths["PADDED_DURATION_MS"],
        win_length=lengths["WINDOW_DURATION_MS"],
        hop_length=lengths["STEP_SIZE_MS"],
        n_mels=int(numbers["NUM_FREQUENCIES"]),
        f_min=numbers["MIN_FREQUENCY"],
        f_max=numbers["MAX_FREQUENCY"],
        amplitude="power",
        power=numbers["POWER_FOR_IMAGE"],
        channels=2 if numbers["STEREO"] else 1,
        stereo="left-right",
        grid="seconds",
        width=SpectrogramConfig.riffusion().width,
    )
    return config, maximum if 0.0 < maximum < math.inf else None


def _milliseconds(samples: int, sample_rate: int) -> int | float:
    exact = 1000.0 * samples / sample_rate
    # Half a sample more, so that cutting to samples on the way back cannot lose one.
    return _whole(exact) if exact.is_integer() else exact + 500.0 / sample_rate


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
