"""A recording split into stems: some are generated anew by a remix, the rest stays as it is.

Demucs splits it (Rouard, Massa and Défossez 2023, the extra ``riff-music[stems]``), or a function of the caller's.
What a
separator leaves over stays with the kept part, so that kept and chosen always add up to the recording.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riff.audio.channels import to_mono
from riff.audio.io import resample
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import check_safetensors, first_line
from riff.utils.validation import show, suggest

STEMS = ("drums", "bass", "other", "vocals")
NAME = "htdemucs"
# Where Demucs' own package has its weights, and how it calls them.
REPOSITORY, WEIGHTS = "adefossez/HTDemucs", "955717e8.safetensors"
QUIETEST_DB = -60.0  # of a stem against its recording; what lies below is the separator's noise

# From ``(C, T)`` and its sample rate to the stems by name, each ``(C, T)`` as well.
Separator = Callable[[Tensor, int], Mapping[str, Tensor]]


def check_stems(stems: Sequence[str], known: Sequence[str] = STEMS) -> tuple[str, ...]:
    """The requested stems, in the order of ``known``.

    Raises:
        RiffError: the list is empty, or a stem is not known; the nearest is named.
    """
    if isinstance(stems, str) or not isinstance(stems, Sequence) or not stems:
        raise RiffError(f"stems are {show(stems)}; use a list of one or more of {', '.join(known)}")
    for name in stems:
        if name not in known:
            raise RiffError(f"there is no stem {show(name)}; {suggest(name, known)}known are {', '.join(known)}")
    return tuple(name for name in known if name in stems)


@dataclasses.dataclass(frozen=True)
class StemSelection:
    """Which stems to replace.

    Attributes:
        stems: their names.
        separator: splits a recording into its stems.
        facts: what the clip says about it: ``stems``, a JSON list, and ``separator``, "htdemucs" or "own".
    """

    stems: tuple[str, ...]
    separator: Separator
    facts: dict[str, str]


def choose_stems(
    stems: Sequence[str] | None, separator: Separator | None, *, device: torch.device | str
) -> StemSelection | None:
    """The choice of a call; None for the whole recording.

    Args:
        stems: None is the whole.
        separator: None is Demucs.
        device: where Demucs computes.

    Raises:
        RiffError: a stem that Demucs does not know, or a separator without stems.
        ModelError, SystemProblem: as of :func:`demucs_separator`.
    """
    if stems is None:
        if separator is not None:
            raise RiffError("a separator is given without stems; say which stems to remix")
        return None
    if separator is not None:  # its names are known when it has run
        return StemSelection(tuple(stems), separator, {"stems": json.dumps(list(stems)), "separator": "own"})
    chosen = check_stems(stems)
    return StemSelection(chosen, demucs_separator(device=device), {"stems": json.dumps(chosen), "separator": NAME})


def recorded_stems(made: Mapping[str, str]) -> list[str] | None:
    """The stems that a file records as replaced; None for the whole recording.

    Args:
        made: its provenance; untrusted.

    Raises:
        RiffError: they are invalid, or were split by a function that the file does not hold.
    """
    if "stems" not in made:
        return None
    if made.get("separator") != NAME:
        raise RiffError("its stems were separated by a function that was given, which the file does not hold")
    try:
        stems = json.loads(made["stems"])
    except ValueError as error:
        raise RiffError(f"stems are {show(made['stems'])}, which is no JSON") from error
    return list(check_stems(stems))


def split_stems(waveform: Tensor, sample_rate: int, choice: StemSelection) -> tuple[Tensor, Tensor]:
    """What is kept of a recording, and the sum of its chosen stems.

    Args:
        waveform: ``(C, T)``.
        sample_rate: samples per second.
        choice: the stems, and the separator.

    Returns:
        Kept and chosen, each ``(C, T)``; they add up to ``waveform`` but for the rounding of floats.

    Raises:
        RiffError: the separator returns something else, or the chosen stems are silent.
    """
    parts = choice.separator(waveform, sample_rate)
    names = check_stems(choice.stems, tuple(parts))
    for name in names:
        part = parts[name]
        if part.shape != waveform.shape or not bool(torch.isfinite(part).all()):
            raise RiffError(
                f"the separator gives {name} of shape {tuple(part.shape)} for a sound of {tuple(waveform.shape)}; "
                "it must give finite samples of the same shape"
            )
    chosen = torch.stack([parts[name].to(waveform) for name in names]).sum(0)
    level = 10.0 * float(((chosen.square().mean() + 1e-12) / (waveform.square().mean() + 1e-12)).log10())
    if level < QUIETEST_DB or not bool(chosen.any()):
        raise RiffError(f"no {' and no '.join(names)} can be heard in the recording; choose other stems to remix")
    return waveform - chosen, chosen


def check_demucs() -> None:
    """Raise SystemProblem if the extra is not installed."""
    try:
        import demucs.htdemucs  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        raise SystemProblem(
            "remixing by stems needs Demucs; install it: python -m pip install 'riff-music[stems]'"
        ) from error


def demucs_separator(*, device: torch.device | str = "cpu") -> Separator:
    """Hybrid Transformer Demucs: drums, bass, vocals and the rest.

    Its weights (about 80 MB) are downloaded once, and taken from the Hub's cache from then on.

    Args:
        device: where it computes.

    Raises:
        SystemProblem: the extra is not installed.
        ModelError: its weights are not here and cannot be downloaded, or are damaged.
    """
    check_demucs()
    return separator_of(load_htdemucs(_find_weights()), device=device)


def separator_of(model: Any, *, device: torch.device | str = "cpu") -> Separator:
    """A separator from a Demucs model, in overlapping segments, at the recording's own rate and in its channels.

    The model's random shifts are left out, so that the same recording gives the same stems.
    """
    from demucs.apply import apply_model

    @torch.no_grad()
    def separate(waveform: Tensor, sample_rate: int) -> dict[str, Tensor]:
        sound = resample(waveform, sample_rate, model.samplerate).expand(model.audio_channels, -1)
        # It was trained on sound of unit variance.
        mean, spread = sound.mean(), sound.mean(0).std() + 1e-8
        parts = apply_model(model, ((sound - mean) / spread)[None], shifts=0, device=device)[0].cpu() * spread
        named = zip(model.sources, parts, strict=True)
        return {name: _like(waveform, part, model.samplerate, sample_rate) for name, part in named}

    return separate


def _like(waveform: Tensor, part: Tensor, own_rate: int, sample_rate: int) -> Tensor:
    """A stem at the recording's rate, in its channels and of its length."""
    channels, length = waveform.shape
    sound = resample(part if channels == len(part) else to_mono(part), own_rate, sample_rate)
    return torch.nn.functional.pad(sound, (0, max(0, length - sound.shape[-1])))[:, :length]


def _find_weights() -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(REPOSITORY, WEIGHTS))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelError(
            f"the weights of {NAME} ({REPOSITORY}) are not in the Hub's cache, and the Hub was not reached; go "
            "online once, or unset HF_HUB_OFFLINE"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"the weights of {NAME} could not be downloaded ({first_line(error)}); go online") from error


def load_htdemucs(path: Path) -> Any:
    """The Demucs model in a safetensors file as Demucs exports it.

    Demucs' own loader imports any class that the file names; this one accepts the expected class only.

    Raises:
        ModelError: the file is damaged, or holds another model.
    """
    from demucs.htdemucs import HTDemucs
    from safetensors import safe_open
    from safetensors.torch import load_file

    check_safetensors(path)
    with safe_open(path, framework="pt") as file:
        facts = file.metadata() or {}
    if facts.get("klass") != "demucs.htdemucs.HTDemucs" or "structure" in facts:
        raise ModelError(f"{path} is a {show(facts.get('klass'))} and not an HTDemucs; delete it to download it again")
    try:
        words, options = (_with_fractions(json.loads(facts[name])) for name in ("args", "kwargs"))
        model = HTDemucs(*words, **options)
        model.load_state_dict(load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"{path} holds no HTDemucs ({first_line(error)}); delete it to download it again") from error
    return model.eval()


def _with_fractions(value: Any) -> Any:
    """JSON in which Demucs writes a fraction as an object."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {name: _with_fractions(item) for name, item in value.items()}
    return [_with_fractions(item) for item in value] if isinstance(value, list) else value
