"""Loops, walks, songs and edits, measured.

    python -m training.measure.canvas loops --count 20
    python -m training.measure.canvas walks --count 6
    python -m training.measure.canvas song
    python -m training.measure.canvas edits --count 10
    python -m training.measure.canvas keys --count 24
    python -m training.measure.canvas stereo --count 6

``loops``: at the seam and at every other downbeat of a loop played twice, the spectral flux (rise of log-magnitudes,
the largest within 20 ms) and the step between two samples, over the mean of the loop's other downbeats; a plain clip,
repeated, for comparison. ``walks``: mel statistics (64 bands) bar by bar; largest step between neighbouring bars over
the mean step, largest distance of the progress from A to B from a straight line, and how far the quietest bar lies
under the quieter of the two end bars (and so for the bars between the two stays alone, which are the walk's own),
against crossfading two clips and against Riffusion's scheme of one clip after another. ``song``: time and peak memory
of 30 and of 180 s, each in its own process. ``edits``: composed pieces are extended; level, beat and key of what is new
against what was kept. ``keys``: four seeds of each prompt at a tempo and in a key, drawn once, and drawn up to four
times and at the last transposed. ``stereo``: see :mod:`training.measure.canvas`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from riff.audio.loudness import loudness
from riff.evaluate.figures import wilson_interval
from riff.music.key import measure_key, mirex_key_score
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS
from riff.pipeline import RiffPipeline
from riff.spectrogram.codec import SpectrogramCodec
from riff.tasks.clip import Clip
from riff.tasks.timeline import Keyframe, Timeline
from riff.utils.errors import RiffError
from training.composer.arrange import compose
from training.composer.effects import SAMPLE_RATE
from training.composer.genre_words import NAMES
from training.composer.genres import GENRES
from training.composer.render import render
from training.recipes.dataset import score_to_image

FIRST_SEED = 10_060_000  # held out
BARS = 8
HOP = 128
PAIRS = (
    ("church bells", "techno"),
    ("lo-fi hip hop", "funk"),
    ("solo piano ballad", "drum and bass"),
    ("reggae", "disco"),
    ("ambient", "house"),
    ("bossa nova", "swing jazz"),
    ("classical string quartet", "synthwave"),
    ("blues", "rock"),
)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


# Loops
def flux_at(sound: Tensor, places: list[int]) -> list[float]:
    """Spectral flux (T,) at samples: the largest within 20 ms."""
    window = torch.hann_window(1024)
    magnitude = torch.stft(sound, 1024, HOP, window=window, return_complex=True).abs()
    flux = (magnitude + 1e-2).log().diff(dim=1).clamp(min=0).sum(0)
    reach = round(0.02 * SAMPLE_RATE / HOP)
    return [float(flux[max(0, place // HOP - reach) : place // HOP + reach].max()) for place in places]


def steps_at(sound: Tensor, places: list[int]) -> list[float]:
    """Step between two neighbouring samples at the given ones: the largest of five."""
    step = sound.diff().abs()
    return [float(step[place - 3 : place + 2].max()) for place in places]


def seam_figures(sound: Tensor, bars: int) -> dict[str, list[float]]:
    """Flux and step at the seam (first) and at the other downbeats of a sound (T,) that is repeated."""
    twice = sound.repeat(3)
    places = [len(sound) + round(bar * len(sound) / bars) for bar in range(bars)]
    return {"flux": flux_at(twice, places), "step": steps_at(twice, places)}


def onset_profile(image: Tensor, beats_per_bar: int, frames_per_beat: int) -> Tensor:
    """(4 per beat of a bar,) mean rise of a picture (1, M, N) around every sixteenth, folded on the bar.

    The first bar is left out: in a piece that starts there, nothing rises before its first downbeat, while the
    window shows every other attack a little early.
    """
    bar, sixteenth = beats_per_bar * frames_per_beat, frames_per_beat // 4
    rise = image.diff(dim=-1).clamp(min=0).mean((0, 1))[bar - 1 - sixteenth // 2 :]
    place = torch.arange(len(rise)) % bar // sixteenth
    folded = torch.zeros(beats_per_bar * 4).index_add_(0, place, rise)
    folded = folded / torch.zeros_like(folded).index_add_(0, place, torch.ones(len(rise)))
    return folded - folded.mean()


def measure_loops(pipe: RiffPipeline, count: int) -> str:
    """The table of ``count`` loops, and of plain clips repeated."""
    inside: dict[str, dict[str, list[float]]] = {}
    on_beat, steady, rows = 0, 0, []
    for number, genre in enumerate(_genres(count)):
        prompt = NAMES[genre][0]
        loop = pipe(prompt, bars=BARS, seed=number, loop=True).clips[0]
        plain = pipe(prompt, bars=BARS, seed=number, bpm=loop.bpm).clips[0]
        for name, clip in (("loop", loop), ("plain clip", plain)):
            for what, values in seam_figures(clip.waveform[0], BARS).items():
                mean = statistics.mean(values[1:])
                part = inside.setdefault(f"{name}, {what}", {"seam": [], "others": []})
                part["seam"].append(values[0] / mean)
                part["others"] += [value / mean for value in values[1:]]
        steady += _is_steady(loop)
        metre = int(loop.settings["beats_per_bar"])
        per_beat = pipe.config.frames_per_beat
        composed = [_composed(genre, seed, metre, pipe) for seed in range(4)]
        real = torch.stack([onset_profile(image, metre, per_beat) for image in composed]).sum(0)
        drawn = onset_profile(loop.image, metre, per_beat)
        fits = [float(torch.dot(drawn.roll(-turn), real)) for turn in range(len(drawn))]
        turn = max(range(len(fits)), key=fits.__getitem__)
        on_beat += turn == 0
        rows.append(f"{genre}: turned by {turn / 4:g} beats" if turn else "")
        say(f"loop {number + 1}/{count}: {genre}, downbeat at {turn / 4:g}")
    lines = ["| | seam over the mean of other downbeats | 95 % of other downbeats | inside |", "|---|---|---|---|"]
    for name, part in inside.items():
        others = torch.tensor(part["others"])
        low, high = (float(others.quantile(q)) for q in (0.025, 0.975))
        share = sum(low <= value <= high for value in part["seam"])
        lines.append(
            f"| {name} | {statistics.mean(part['seam']):.2f} ({min(part['seam']):.2f} to {max(part['seam']):.2f}) "
            f"| {low:.2f} to {high:.2f} | {share}/{count} |"
        )
    lines += ["", f"downbeat on the first column: {on_beat}/{count} ({', '.join(filter(None, rows)) or 'all'})"]
    return "\n".join([*lines, f"played eight times, tempo within 1 %: {steady}/{count}"])


def _is_steady(loop: Clip) -> bool:
    try:
        measured = measure_tempo(loop.waveform.repeat(1, 8), loop.sample_rate)
    except RiffError:
        return False
    return tempo_error(measured, loop.bpm) < 0.01


def _composed(genre: str, number: int, metre: int, pipe: RiffPipeline) -> Tensor:
    """(1, M, N): four bars of a composed piece of this genre and metre."""
    for seed in range(FIRST_SEED + 100 * number, FIRST_SEED + 100 * number + 60):
        score = compose(seed, genre=genre, windows=2)
        if score.windows[0].beats_per_bar == metre:
            break
    picture = torch.from_numpy(score_to_image(score, pipe.config)).float()[None] / 255.0
    width = picture.shape[-1] // (metre * pipe.config.frames_per_beat) * metre * pipe.config.frames_per_beat
    return picture[..., :width]


def _genres(count: int) -> Iterator[str]:
    names = sorted(GENRES)
    return (names[number * 7 % len(names)] for number in range(count))


# Walks
def bars_of(image: Tensor, columns: int) -> Tensor:
    """(bars, 64): mean picture values of every bar of ``columns`` columns, in 64 bands."""
    bars = image[0].unfold(-1, columns, columns).mean(-1).T
    return torch.nn.functional.adaptive_avg_pool1d(bars[None], 64)[0]


def walk_figures(image: Tensor, sound: Tensor, columns: int, bars: int) -> dict[str, float]:
    """How smoothly a picture and its sound (1, T) of so many bars, at one tempo, go from one end to the other."""
    means = bars_of(image, columns)
    step = means.diff(dim=0).norm(dim=1)
    a, b = means[:2].mean(0), means[-2:].mean(0)
    progress = ((means - a) @ (b - a)) / ((b - a) @ (b - a))
    # Two bars' stay at either end, and the way between.
    line = torch.cat([torch.zeros(2), torch.linspace(0, 1, bars - 2)[1:-1], torch.ones(2)])
    each = sound.shape[-1] // bars
    levels = [loudness(sound[:, bar * each : (bar + 1) * each], SAMPLE_RATE) for bar in range(bars)]
    return {
        "largest step / mean": float(step.max() / step.mean()),
        "off the line": float((progress - line).abs().max()),
        "level dip LU": min(levels[0], levels[-1]) - min(levels),
        "dip on the way LU": min(levels[0], levels[-1]) - min(levels[2:-2]),
    }


def crossfaded(pipe: RiffPipeline, pair: tuple[str, str], bars: int, bpm: float, seed: int) -> Tensor:
    """Loops of two prompts, the one faded into the other."""
    ends = [pipe(prompt, bars=2, bpm=bpm, seed=seed, loop=True).clips[0] for prompt in pair]
    sounds = [clip.waveform.repeat(1, bars // 2) for clip in ends]
    bar = sounds[0].shape[-1] // bars
    share = ((torch.arange(sounds[0].shape[-1]) / bar - 2) / (bars - 4)).clamp(0, 1)
    return sounds[0] * (share * math.pi / 2).cos() + sounds[1] * (share * math.pi / 2).sin()


def clip_by_clip(pipe: RiffPipeline, pair: tuple[str, str], bars: int, bpm: float, seed: int) -> Tensor:
    """Riffusion's scheme: clips of two bars, each between the prompts' embeddings, played one after another."""
    from riff.diffusion.conditioning import CanvasConditioning
    from riff.diffusion.model import DenoiseOptions
    from riff.tasks.clip import image_to_waveform

    model, count, pieces = pipe.model, bars // 2, []
    texts = [model.interpret(prompt, bpm=bpm).text for prompt in pair]
    first, last = model.embed(texts)
    layout = model.layout(pipe.config.width)
    for number in range(count):
        told = torch.lerp(first, last, number / (count - 1))[None, None]
        conditions = CanvasConditioning(told, torch.tensor([model.default_guidance]), model.embed([""])[None])
        image = model.sample_images(model.noise(layout, seed), layout, conditions, [seed], DenoiseOptions())[0]
        pieces.append(image_to_waveform(image, pipe.config, bpm=bpm, seed=seed))
    return torch.cat(pieces, dim=1)


def measure_walks(pipe: RiffPipeline, count: int, bars: int = 16, bpm: float = 110.0) -> str:
    """The table of ``count`` pairs of prompts."""
    ways: dict[str, Callable[[tuple[str, str], int], Tensor]] = {
        "riff walk": lambda pair, seed: pipe.walk(list(pair), seed, bars=bars, bpm=bpm).waveform,
        "crossfade of two loops": lambda pair, seed: crossfaded(pipe, pair, bars, bpm, seed),
        "clip by clip, as Riffusion": lambda pair, seed: clip_by_clip(pipe, pair, bars, bpm, seed),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for seed, pair in enumerate(PAIRS[:count]):
        for name, way in ways.items():
            sound = way(pair, seed)
            # What is heard is measured, not what was drawn.
            image = SpectrogramCodec(pipe.config).encode(sound, bpm=bpm).image
            found[name].append(walk_figures(image, sound, 4 * pipe.config.frames_per_beat, bars))
            say(f"{pair[0]} -> {pair[1]}, {name}: {found[name][-1]}")
    heads = list(found["riff walk"][0])
    lines = ["| way | " + " | ".join(f"{head} (worst)" for head in heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name, rows in found.items():
        cells = [f"{statistics.mean(row[h] for row in rows):.2f} ({max(row[h] for row in rows):.2f})" for h in heads]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Songs
def song(seconds: float) -> Timeline:
    """A piece of three keyframes at 120 bpm."""
    return Timeline(
        keyframes=(
            Keyframe("lo-fi hip hop, mellow electric piano", bar=0.0, bpm=120.0),
            Keyframe("funk", bar=float(seconds // 6)),
            Keyframe("disco", bar=float(seconds // 3)),
        ),
        bars=round(seconds / 2),
        seed=1,
    )


def measure_song(model: str | None) -> str:
    """Seconds and peak memory of a short and a long song, each in its own process."""
    figures = {}
    for seconds in (30, 180):
        code = f"from training.measure.canvas import render_song; render_song({seconds}, {model!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        figures[seconds] = json.loads(done.stdout.strip().splitlines()[-1])
        say(f"{seconds} s: {figures[seconds]}")
    lines = ["| song | rendered in | times real time | peak memory |", "|---|---|---|---|"]
    for seconds, got in figures.items():
        lines.append(f"| {seconds} s | {got['took']:.0f} s | {seconds / got['took']:.1f} | {got['mib']:.0f} MiB |")
    ratio = figures[180]["mib"] / figures[30]["mib"]
    return "\n".join([*lines, "", f"memory of 180 s over that of 30 s: {ratio:.2f}"])


def render_song(seconds: float, model: str | None) -> None:
    """What the measuring process does: one line of JSON."""
    pipe = RiffPipeline.from_pretrained(model, device="cpu")
    start = time.perf_counter()
    clip = pipe.render(song(seconds))
    took = time.perf_counter() - start
    assert abs(clip.duration - seconds) < 0.01
    print(json.dumps({"took": took, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


# Edits
def measure_edits(pipe: RiffPipeline, count: int) -> str:
    """Level, beat and key of what :meth:`RiffPipeline.extend` adds to composed pieces."""
    levels, lags, off_grid, keys = [], [], [], []
    for number, genre in enumerate(_genres(count)):
        score = compose(FIRST_SEED + 500 + number, genre=genre, windows=2)
        truth = score.windows[0]
        whole = torch.from_numpy(render(score)).mean(0, keepdim=True)
        length = round(score.beats * 60.0 / score.bpm * SAMPLE_RATE)
        kept = whole[:, :length]
        prompt = f"{NAMES[genre][0]}, {truth.lead}" if truth.lead else NAMES[genre][0]
        longer = pipe.extend(
            kept, prompt, bars=4, bpm=score.bpm, downbeat=0.0, sample_rate=SAMPLE_RATE, key=truth.keyscale,
            seed=number,
        ).waveform  # fmt: skip
        new = longer[:, length:]
        levels.append(loudness(new, SAMPLE_RATE) - loudness(kept, SAMPLE_RATE))
        if truth.has_drums:
            lags.append(_beat_lag(kept[0], new[0], score.bpm))
            sixteenth = 15000.0 / score.bpm
            off_grid.append((lags[-1] + sixteenth / 2) % sixteenth - sixteenth / 2)
        heard = measure_key(new, SAMPLE_RATE)
        keys.append((heard == truth.keyscale, mirex_key_score(heard, truth.keyscale)))
        say(f"{genre}: {levels[-1]:+.1f} LU, lag {lags[-1] if lags else math.nan:.0f} ms, {heard} for {truth.keyscale}")
    near, on_grid = (sum(abs(lag) <= 20 for lag in each) for each in (lags, off_grid))
    return "\n".join(
        [
            "| what is new against what was kept | |",
            "|---|---|",
            f"| level, mean (mean distance) | {statistics.mean(levels):+.1f} LU "
            f"({statistics.mean(map(abs, levels)):.1f}) |",
            f"| the same part of the beat is strongest, within 20 ms, pieces with drums | {near}/{len(lags)} |",
            f"| beats, or other sixteenths of the old beats, within 20 ms | {on_grid}/{len(lags)} |",
            f"| key exact (MIREX score) | {sum(k for k, _ in keys)}/{count} "
            f"({statistics.mean(s for _, s in keys):.2f}) |",
        ]
    )


def measure_keys(pipe: RiffPipeline, count: int, seeds: int = 4) -> str:
    """Share of clips that have the asked tempo and key, without and with verification."""
    found: dict[str, list[bool]] = {
        name: [] for name in ("tempo, drawn once", "tempo, verified", "key, drawn once", "key, verified")
    }
    moved = 0
    for number, genre in enumerate(_genres(count)):
        key = KEYS[number * 7 % len(KEYS)]
        prompt = NAMES[genre][0]
        for seed in range(seeds):
            bpm = float(70 + (number * 13 + seed * 29) % 80)
            once = pipe(prompt, bpm=bpm, key=key, seed=100 * number + seed).clips[0]
            sure = pipe(prompt, bpm=bpm, key=key, seed=100 * number + seed, key_tries=4).clips[0]
            found["tempo, drawn once"].append(_is_steady(once))
            found["tempo, verified"].append(_is_steady(sure))
            found["key, drawn once"].append(_key_of(once) == key)
            found["key, verified"].append(sure.settings["key_measured"] == key)
            moved += bool(sure.settings["key_moved"])
        say(f"{number + 1}/{count}: " + ", ".join(f"{name} {sum(hits)}/{len(hits)}" for name, hits in found.items()))
    lines = ["| asked | had |", "|---|---|"]
    for name, hits in found.items():
        low, high = wilson_interval(sum(hits), len(hits))
        lines.append(f"| {name} | {sum(hits)}/{len(hits)} ({low:.0%} to {high:.0%}) |")
    return "\n".join([*lines, "", f"transposed at the last: {moved}"])


def _key_of(clip: Clip) -> str:
    try:
        return measure_key(clip.waveform, clip.sample_rate)
    except RiffError:
        return "none"


def _beat_lag(kept: Tensor, new: Tensor, bpm: float) -> float:
    """Milliseconds by which the beats of ``new`` (T,) come later than those of ``kept`` would, from -half to half."""
    hop, beat = 110, 60.0 / bpm * SAMPLE_RATE
    bins = 64

    def profile(sound: Tensor) -> Tensor:
        magnitude = torch.stft(sound, 1024, hop, window=torch.hann_window(1024), return_complex=True).abs()
        rise = (magnitude + 1e-2).log().diff(dim=1).clamp(min=0).sum(0)
        place = ((torch.arange(len(rise)) + 1) * hop / beat * bins).floor().long() % bins
        folded = torch.zeros(bins).index_add_(0, place, rise)
        return folded - folded.mean()

    a, b = profile(kept), profile(new)
    fits = [float(torch.dot(a, b.roll(-turn))) for turn in range(bins)]
    turn = max(range(bins), key=fits.__getitem__)
    return (turn if turn < bins / 2 else turn - bins) / bins * beat / SAMPLE_RATE * 1000.0


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["loops", "walks", "song", "edits", "keys", "stereo"])
    parser.add_argument("--count", type=int, default=20, help="prompts, pairs or pieces; default 20")
    parser.add_argument("--model", help="default riff-mini")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    if arguments.what == "song":
        print(measure_song(arguments.model))
        return
    torch.set_num_threads(arguments.threads)
    pipe = RiffPipeline.from_pretrained(arguments.model, device="cpu")
    ways = {
        "loops": measure_loops,
        "walks": measure_walks,
        "edits": measure_edits,
        "keys": measure_keys,
        "stereo": lambda pipe, count: measure_stereo(pipe, list(_genres(count)), FIRST_SEED + 800),
    }
    print(ways[arguments.what](pipe, arguments.count))


# Which two channels of a stereo recording are drawn side by side: left and right, or mid and side.
#
# python -m training.measure.canvas stereo --count 6
#
# Composed stereo pieces are remixed as mid and side, which is what riff does, and left and right each by itself, from
# the same noise: how the channels hang together, how wide they are, and what their sum sounds like, against the
# piece's own and against the same piece remixed in mono.

STRENGTHS = (0.0, 0.3, 0.6)


def width_figures(sound: Tensor, piece: Tensor, mono: Tensor) -> dict[str, float]:
    """What became of the channels of a piece (2, T), and of their sum, whose remix from mono is ``mono`` (1, T).

    Correlation and side level are distances from the piece's own; the sum's spectrum is compared in 64 mel bands,
    averaged over time, with each at one level.
    """
    bands = [_spectrum(x) for x in (sound.mean(0), mono[0])]
    return {
        "correlation": abs(_correlation(sound) - _correlation(piece)),
        "side level dB": abs(_side_level(sound) - _side_level(piece)),
        "level of the sum LU": abs(
            loudness(sound.mean(0, keepdim=True), SAMPLE_RATE) - loudness(piece.mean(0, keepdim=True), SAMPLE_RATE)
        ),
        "sum against mono dB": float((bands[0] - bands[1]).abs().mean()),
    }


def _correlation(sound: Tensor) -> float:
    return float(torch.corrcoef(sound)[0, 1])


def _side_level(sound: Tensor) -> float:
    """Decibels of half the difference of two channels over half their sum."""
    middle, side = sound.sum(0), sound[0] - sound[1]
    return 10.0 * math.log10(float(side.square().mean() / middle.square().mean()) + 1e-9)


def _spectrum(sound: Tensor) -> Tensor:
    """(64,) decibels of the mean magnitude in bands of equal width in octaves, around their mean."""
    magnitude = torch.stft(sound, 4096, 1024, window=torch.hann_window(4096), return_complex=True).abs().mean(1)
    edges = torch.logspace(math.log10(8), math.log10(1400), 65).round().long()
    bands = torch.stack([magnitude[a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)])
    decibels = 20.0 * (bands + 1e-4).log10()
    return decibels - decibels.mean()


def measure_stereo(pipe: RiffPipeline, genres: Sequence[str], first_seed: int) -> str:
    """The table of a composed piece of each genre, remixed in two ways at some strengths."""
    found: dict[tuple[float, str], list[dict[str, float]]] = {}
    for number, genre in enumerate(genres):
        score = compose(first_seed + number, genre=genre, windows=1)
        piece = torch.from_numpy(render(score))[:, : round(score.beats * 60.0 / score.bpm * SAMPLE_RATE)]
        for strength in STRENGTHS:
            remixed = functools.partial(_remixed, pipe, NAMES[genre][1], score.bpm, number, strength)
            mono = remixed(piece.mean(0, keepdim=True))
            each = torch.cat([remixed(channel[None]) for channel in piece])
            ways = {"left and right": each, "mid and side": remixed(piece)}
            for way, sound in ways.items():
                found.setdefault((strength, way), []).append(width_figures(sound, piece, mono))
                print(f"{genre} {strength} {way}: {found[strength, way][-1]}", file=sys.stderr, flush=True)
    heads = list(next(iter(found.values()))[0])
    lines = ["| strength | way | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for (strength, way), rows in found.items():
        cells = [f"{statistics.mean(row[head] for row in rows):.2f}" for head in heads]
        lines.append(f"| {strength:g} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _remixed(pipe: RiffPipeline, prompt: str, bpm: float, seed: int, strength: float, sound: Tensor) -> Tensor:
    return pipe.remix(
        sound, prompt, strength=strength, sample_rate=SAMPLE_RATE, bpm=bpm, downbeat=0.0, seed=seed
    ).waveform


if __name__ == "__main__":
    main()
