"""A small network that finds where beats and bars are: dilated convolutions over time (Davies & Böck 2019).

It gives each fiftieth of a second three likelihoods, that nothing, a beat or a bar begins there;
:mod:`riff.music.beat_net` makes beats and bars of them. It was trained by :mod:`training.recipes.beat_net`.
"""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from riff.audio.io import resample
from riff.spectrogram.inversion.kernels import compiled
from riff.utils.errors import ModelError, checkpoint
from riff.utils.files import write_bytes

SAMPLE_RATE = 22050
HOP = 441
RATE = SAMPLE_RATE / HOP  # frames per second
WEIGHTS = Path(__file__).parents[1] / "models" / "beats.safetensors"
_MINUTE = 60 * SAMPLE_RATE // HOP  # frames
_SHORT, _LONG = 1024, 4096  # windows in samples: one for when, one for which pitch
BANDS, _LOWEST, _HIGHEST = 40, 30.0, 10000.0
_FIRST_PITCH, _PITCHES = 36, 60  # semitones from C2
FEATURES = BANDS + _PITCHES
FLOOR = 1e-3  # of the sound's own level, under which all is silence
CHANNELS, LAYERS = 48, 9


class BeatNet(nn.Module):
    """Levels (B, F, N) to log likelihoods (B, 3, N) of nothing, a beat, a beat that begins a bar.

    Each layer looks at five frames, twice as far apart as those of the layer before: 20 seconds to either side in all.
    """

    def __init__(self, channels: int = CHANNELS, layers: int = LAYERS) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)
        self.enter = nn.Conv1d(FEATURES, channels, 3, padding=1)
        self.layers = nn.ModuleList(_Layer(channels, 2**number) for number in range(layers))
        self.leave = nn.Conv1d(channels, 3, 1)

    def forward(self, levels: Tensor) -> Tensor:
        hidden = functional.relu(self.enter(self.norm(levels)))
        total = hidden
        for layer in self.layers:
            hidden = layer(hidden)
            total = total + hidden
        result: Tensor = self.leave(functional.relu(total)).log_softmax(1)
        return result


class _Layer(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.look = nn.Conv1d(channels, channels, 5, padding=2 * dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        looked = functional.relu(self.norm(self.look(hidden)))
        result: Tensor = hidden + self.mix(looked)
        return result


def magnitudes(mono: Tensor, sample_rate: int) -> Tensor:
    """What the network reads, before its logarithm: (F, N) magnitudes over the sound's own level, 50 frames a second.

    Args:
        mono: (T,).
        sample_rate: of it, in Hz.
    """
    sound = resample(mono.float(), sample_rate, SAMPLE_RATE)
    sound = sound / sound.square().mean().sqrt().clamp_min(1e-8)
    rows = [_rows(sound, *each) for each in ((_SHORT, _band_weights()), (_LONG, _pitch_weights()))]
    return torch.cat(rows)


def _rows(sound: Tensor, size: int, weights: Tensor) -> Tensor:
    """Weighted sums (R, N) of a sound's magnitudes, a minute at a time, since whole spectra are large."""
    window = torch.hann_window(size)
    padded = functional.pad(sound, (size // 2, size // 2))
    found = []
    for first in range(0, len(sound) // HOP + 1, _MINUTE):
        checkpoint()
        part = padded[first * HOP : (first + _MINUTE - 1) * HOP + size]
        spectrum = torch.stft(part, size, HOP, window=window, center=False, return_complex=True).abs()
        found.append(weights @ (spectrum * (2.0 / float(window.sum()))))
    return torch.cat(found, 1)


def levels(found: Tensor, floor: float = FLOOR) -> Tensor:
    """Logarithms to base 10 of :func:`magnitudes`, with a floor."""
    return (found + floor).log10()


@functools.cache
def _band_weights() -> Tensor:
    """(40, F) triangles, evenly spaced in the logarithm of frequency."""
    edges = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), BANDS + 2, dtype=torch.float64)
    return _triangles(edges, _SHORT)


@functools.cache
def _pitch_weights() -> Tensor:
    """(60, F) triangles a semitone wide to either side."""
    pitches = torch.arange(_FIRST_PITCH - 1, _FIRST_PITCH + _PITCHES + 1, dtype=torch.float64)
    return _triangles(440.0 * 2.0 ** ((pitches - 69.0) / 12.0), _LONG)


def _triangles(edges: Tensor, size: int) -> Tensor:
    """Triangles between neighbours but one, none narrower than the distance of two bins, each with sum 1."""
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / size
    bin_ = SAMPLE_RATE / size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = 1.0 - (centre - hertz) / (centre - low).clamp_min(bin_)
    falling = 1.0 - (hertz - centre) / (high - centre).clamp_min(bin_)
    weights = torch.minimum(rising, falling).clamp_min(0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


def save_net(net: BeatNet, path: Path) -> None:
    """Write the weights in float16, whole or not at all."""
    from safetensors.torch import save

    small = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    write_bytes(path, save(small))


@functools.lru_cache(maxsize=2)
def load_net(path: Path = WEIGHTS) -> BeatNet:
    """Read what :func:`save_net` wrote, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged, incomplete, or holds other, NaN or infinite weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    net = BeatNet()
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{path} is missing or does not hold the beat network's weights; install riff again"
        ) from error
    if bad := next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None):
        raise ModelError(f"{path}: {bad} holds NaN or infinite numbers; the file is damaged, so install riff again")
    return net.eval()


@torch.no_grad()
def beat_probabilities(mono: Tensor, sample_rate: int) -> Tensor:
    """(3, N) log likelihoods at :data:`RATE` of nothing, a beat, and a beat that begins a bar, of a sound (T,)."""
    found: Tensor = load_net()(levels(magnitudes(mono, sample_rate))[None])[0]
    return found


# From how likely beats and bars are to when they are: the most likely path through bars.
#
# A path goes from beat to beat; how long a beat is may change a little from one to the next, and each has its
# place in
# the bar (Whiteley, Cemgil & Godsill 2006; the tempo changes on beats only, as in Krebs, Böck & Widmer 2015).
# The best
# one is found by dynamic programming over hundredths of a second.

RATE_BEAT_DECODING = 100  # places per second
SLOWEST, FASTEST = 46.0, 212.0  # beats per minute
KNOWN = 0.06  # share by which beats may leave a known tempo
LOYALTY = 120.0  # e-folds per relative change of the tempo from one beat to the next
REACH = 6  # places by which a beat may be longer or shorter than the one before
USUAL_BPM, SPREAD = 110.0, 1.0  # of tempi, in octaves: what is expected before any sound
NOTHING = -2.8  # log weight of a place without a beat against one with a beat, since those are many
WIDTH = 3  # places from a beat on in which the network finds it
_NEVER = -1e30


@dataclasses.dataclass(frozen=True)
class _Tempi:
    """What is expected of the lengths of beats before any sound.

    Attributes:
        lengths: (I,) of a beat, in places, each one more than the one before.
        prior: (I,) log probability of each at the first beat, and of where in it the sound begins.
        change: (I, 2 * REACH + 1) log probability that a beat of that length comes after one up to REACH shorter or
            longer; :data:`_NEVER` where there is no such length.
    """

    lengths: np.ndarray
    prior: np.ndarray
    change: np.ndarray


@functools.lru_cache(maxsize=8)
def _tempi(bpm: float | None) -> _Tempi:
    slow, fast = (SLOWEST, FASTEST) if bpm is None else (bpm / (1.0 + KNOWN), bpm * (1.0 + KNOWN))
    lengths = np.arange(round(RATE_BEAT_DECODING * 60.0 / fast), round(RATE_BEAT_DECODING * 60.0 / slow) + 1)
    prior = -0.5 * (np.log2(RATE_BEAT_DECODING * 60.0 / lengths / USUAL_BPM) / SPREAD) ** 2 - np.log(lengths)
    before = lengths[:, None] + np.arange(-REACH, REACH + 1)
    change = -LOYALTY * np.abs(lengths[:, None] / before - 1.0)
    change -= np.log(np.exp(change).sum(1, keepdims=True))
    change[(before < lengths[0]) | (before > lengths[-1])] = _NEVER
    return _Tempi(lengths, prior, change)


def likely_beats(
    likelihoods: np.ndarray, rate: float, *, beats_per_bar: int, bpm: float | None = None
) -> tuple[np.ndarray, int]:
    """The beats of the most likely path.

    Args:
        likelihoods: (3, N) logarithms, of nothing, a beat, and a beat that begins a bar.
        rate: of them, per second.
        beats_per_bar: of the music.
        bpm: the tempo where it is known; None is any from 46 to 212.

    Returns:
        Seconds of each beat, increasing, and the index, 0 to ``beats_per_bar - 1``, of the first that begins a bar.
        There may be none.
    """
    count = likelihoods.shape[1]
    if not count:
        return np.zeros(0), 0
    frames = np.arange(int(count * RATE_BEAT_DECODING / rate)) * rate / RATE_BEAT_DECODING
    evidence = np.stack([np.interp(frames, np.arange(count), row) for row in likelihoods])
    evidence[0] += NOTHING
    tempi = _tempi(bpm)
    place, number, came = _best_path(evidence, tempi, beats_per_bar)
    # Back from the last beat: each says how long the one before it was, and that is where that one is.
    times, beats = [], []
    while True:
        beat, index = divmod(number, len(tempi.lengths))
        times.append((place + (WIDTH - 1) / 2) / RATE_BEAT_DECODING)  # the middle of its places
        beats.append(beat)
        step = int(came[place, beat, index])
        if step < 0:
            break
        before = index + step - REACH
        place -= int(tempi.lengths[before])
        number = (beat - 1) % beats_per_bar * len(tempi.lengths) + before
    first = next((index for index, beat in enumerate(reversed(beats)) if beat == 0), 0)
    return np.array(times[::-1]), first % beats_per_bar


def _best_path(evidence: np.ndarray, tempi: _Tempi, beats_per_bar: int) -> tuple[int, int, np.ndarray]:
    """The last beat of the best path, its place and its number among (K, I), and for each beat where it came from.

    Returns:
        The place, the number, and (N, K, I): how much longer the beat before was, with REACH added; -1 for a first.
    """
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(evidence, axis=1)], axis=1)
    shape = (beats_per_bar, len(tempi.lengths))
    # A circular buffer over places: no beat looks farther back than the longest length.
    best = np.full((int(tempi.lengths[-1]) + 1, *shape), _NEVER)
    came = np.full((evidence.shape[1], *shape), -1, dtype=np.int8)
    place, number = compiled(_walk)(sums, tempi.lengths, tempi.prior, tempi.change, best, came)
    return int(place), int(number), came


def _walk(sums, lengths, prior, change, best, came):  # type: ignore[no-untyped-def]
    """Fill ``came``; the place and number of the last beat of the best path.

    A state is a beat that begins at a place, has a position in the bar, and lasts ``lengths[index]`` places. With S_k
    the running sums of the log likelihoods of kind k, a path's score is S_0 over all places but those of its beats, and
    S_1 or S_2 (a beat, a bar) over the WIDTH places of each beat. So a beat at p changes it by

        here = (S_kind[p + WIDTH] - S_kind[p]) - S_0[p + WIDTH],     and its end adds S_0[p + length],

    where the beat before it, which ended at p, has added S_0[p]: the terms telescope to S_0 of the gaps. ``best`` is
    the score of the best path up to and with a beat,

        best[p, k, i] = here + S_0[p + length_i] + max over j of (best[p - length_j, k - 1, j] + change[i, j - i]),

    with |j - i| <= REACH; a beat before which the sound has only the end of another one begins a path.
    """
    count = came.shape[0]
    kept, bar, intervals = best.shape
    reach = change.shape[1] // 2
    most, end_place, end_number = -1e300, 0, 0
    for place in range(count):
        on = min(place + WIDTH, count)
        for beat in range(bar):
            kind = 2 if beat == 0 else 1
            here = sums[kind, on] - sums[kind, place] - sums[0, on]
            behind = (beat + bar - 1) % bar
            for index in range(intervals):
                score, step = -1e300, -1
                if place < lengths[index]:  # a first beat
                    score = prior[index] + sums[0, place]
                for other in range(max(0, index - reach), min(intervals, index + reach + 1)):
                    way = (
                        best[(place + kept - lengths[other]) % kept, behind, other]
                        + change[index, other - index + reach]
                    )
                    if way > score:
                        score, step = way, other - index + reach
                score += here + sums[0, min(place + lengths[index], count)]
                best[place % kept, beat, index] = score
                came[place, beat, index] = step
                if place + lengths[index] >= count and score > most:  # its end is the sound's
                    most, end_place, end_number = score, place, beat * intervals + index
    return end_place, end_number
