"""Music without an end, bar by bar, that can be led elsewhere while it plays.

Each bar is drawn in a window of the training width whose first half is the bar before it, which stays as it is, so the
music goes on from what was heard. What is newly asked for is walked to in the first quarter of the next bar that is
drawn. So of what is sent after a change, it has arrived one bar and a quarter later at most: what was being drawn, and
the way. When that is heard :mod:`riff.tasks.stream` says.
"""

import dataclasses
import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.audio.splice import append
from riff.diffusion.latents import image_to_latents, slerp
from riff.diffusion.model import DenoiseOptions
from riff.diffusion.sampling import Original, StepCallback
from riff.diffusion.windows import training_width
from riff.music.theory import canonical_key, parse_bpm
from riff.prompt.interpret import ParsedPrompt, interpret_prompt
from riff.prompt.syntax import plain_prompt
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.tempo import TempoMap
from riff.tasks.checks import check_prompts
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, check_number

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

WAY = 0.25  # of a bar, in which what is newly asked for is walked to
MARGIN_S = 0.1  # before the end of a picture, where its sound is not yet that of an end
FADE_S = 0.03
PHRASE = 8  # bars over which the noise goes from one seed to the next
_KNEE = 0.8


@dataclasses.dataclass(frozen=True)
class StreamTarget:
    """What the music is led to.

    Attributes:
        prompt: what is played.
        bpm: 20 to 400 beats per minute; None is the prompt's, and where that says none the present one.
        keyscale: such as "F# minor"; None leaves it open.
        guidance_scale: weight of the prompt, 0 to 50; None is the model's usual.
    """

    prompt: str
    bpm: float | None = None
    keyscale: str | None = None
    guidance_scale: float | None = None


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    """What does not change with the music.

    Attributes:
        seed: of everything.
        steps: denoising steps of a bar.
        quality: of the step from picture to sound.
    """

    seed: int
    steps: int = 10
    quality: Quality = "fast"


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar, which is played from where the one before ended, to the sample.

    Attributes:
        waveform: ``(C, T)`` in [-1, 1].
        image: ``(C, M, N)`` in [0, 1].
        beats: when each beat comes in ``waveform`` and when the bar ends, in seconds. A little of the bar's end is kept
            back for the next one, so ``waveform`` ends before it, and begins before the first beat.
    """

    waveform: Tensor
    image: Tensor
    beats: tuple[float, ...]


class MusicStream:
    """One listener's music. :meth:`steer` may be called from another thread than :meth:`next`.

    A shallow copy goes on by itself: a bar that was drawn by one and is not wanted leaves the other as it was.

    Attributes:
        asked: what it is led to.
        manner: how it is drawn; may be replaced between bars.
        sample_rate: of the sound.
        bars: that were drawn.
    """

    def __init__(self, pipe: "RiffPipeline", start: StreamTarget, manner: StreamOptions) -> None:
        self.model, self.manner, self.sample_rate = pipe.model, manner, pipe.sampling_rate
        self.asked = self._reached = _checked(start)
        self._reading = self._read(start, start.bpm)
        config = self.model.config
        self._beats = self._reading.beats_per_bar
        self._half = training_width(config, self._beats) // 2
        self._beats_of_half = self._half / config.frames_per_beat if config.grid == "beats" else float(self._beats)
        self._layout = self.model.layout(2 * self._half, beats_per_bar=self._beats)
        self.bars = 0
        self._context: Tensor | None = None
        self._glide = (self.bpm, self.bpm)
        self._tail: Tensor | None = None
        self._margin = 0
        self._level: float | None = None

    @property
    def bpm(self) -> float:
        """Tempo at the end of what was drawn; on the seconds grid, that at which half a picture is a bar."""
        config = self.model.config
        if config.grid == "beats":
            return self._reading.bpm
        return self._reading.beats_per_bar * 60.0 * config.sample_rate / (self._half * config.hop_length)

    @property
    def bar_seconds(self) -> float:
        """Length of a bar at the present tempo."""
        return self._beats_of_half * 60.0 / self.bpm

    def steer(self, prompt: str | None = None, bpm: float | None = None) -> None:
        """Walk to another prompt or tempo, or both; a prompt that says no tempo keeps the present one.

        Raises:
            RiffError: as :meth:`lead_to`.
        """
        if prompt is not None:
            kept = None if self.asked is self._reached else self.asked.bpm
            station = dataclasses.replace(self.asked, prompt=prompt, bpm=kept if bpm is None else bpm)
        else:
            station = dataclasses.replace(self.asked, bpm=self.asked.bpm if bpm is None else bpm)
        self.lead_to(station)

    def lead_to(self, station: StreamTarget) -> None:
        """Walk there in the next bar that is begun.

        Raises:
            RiffError: a value is out of its range, or the model's pictures know no tempo.
        """
        if station == self.asked:
            return
        if self.model.config.grid == "seconds" and station.bpm not in (None, self.asked.bpm):
            raise RiffError("this model's pictures have a fixed clock; a tempo cannot be walked to")
        self.asked = _checked(station)

    def next(self, callback: StepCallback | None = None) -> Bar:
        """The next bar, which walks to what was asked for when it is begun. If it raises, nothing has happened.

        Raises:
            RiffError: a prompt cannot be read.
            ModelError: the model drew numbers that are not finite.
        """
        asked, target = self.asked, self._reading
        if asked is not self._reached:
            target = self._target(asked)
        image = self._draw(target, asked, DenoiseOptions(self.manner.steps, callback))
        bar, first, now = self._beats_of_half, self._context is None, self.bpm
        self._reading, self._reached = target, asked
        before, self._glide = self._glide, (self.bpm if first else now, self.bpm)
        knots = [(0.0, before[0]), (WAY * bar, before[1]), (bar, self._glide[0]), ((1 + WAY) * bar, self.bpm)]
        made = self._sounding(image, TempoMap.glide(knots[2:] if first else knots), first=first)
        self._context = made.image.clone()
        self.bars += 1
        return made

    def _read(self, station: StreamTarget, bpm: float | None) -> ParsedPrompt:
        key = None if station.keyscale is None else canonical_key(station.keyscale)
        model = self.model
        return interpret_prompt(station.prompt, bpm=bpm, keyscale=key, parts=model.components, prior=model.prior)

    def _target(self, station: StreamTarget) -> ParsedPrompt:
        """A station that says no tempo keeps the present one; the metre stays."""
        bpm = station.bpm
        if bpm is None and parse_bpm(plain_prompt(station.prompt)) is None:
            bpm = self._reading.bpm
        return dataclasses.replace(self._read(station, bpm), beats_per_bar=self._beats)

    def _draw(self, target: ParsedPrompt, asked: StreamTarget, sampling: DenoiseOptions) -> Tensor:
        """``(C, M, N)``: the last bar as it was and the next one, or two new ones."""
        model, original, width = self.model, None, self._layout.width
        if self._context is not None:
            filled = torch.cat([self._context, torch.zeros_like(self._context)], dim=-1)
            mask = (torch.arange(width) >= width // 2).float().expand(model.latent_rows[1], -1)
            original = Original(image_to_latents(filled[None], model.components.vae), 1.0, mask)
        usual = model.default_guidance
        guidance = [
            usual if station.guidance_scale is None else station.guidance_scale for station in (self._reached, asked)
        ]
        if asked is self._reached or self._context is None:
            conditions = model.conditions([[target]], guidance[1:], [""])
        else:
            half = width // 2
            along = ((torch.arange(width) - half + 0.5) / (WAY * half)).clamp(0.0, 1.0)
            conditions = model.conditions([[self._reading, target]], guidance, [""] * 2, progress=along)
        drawn = model.sample_images(
            self._noise(), self._layout, conditions, [self.manner.seed], sampling, original=original
        )[0]
        return drawn if self._context is None else torch.cat([self._context, drawn[..., self._half :]], dim=-1)

    def _noise(self) -> Tensor:
        """Noise that goes on an arc from seed to seed, so that the music changes a little with each bar."""
        phrase, place = divmod(self.bars, PHRASE)
        ends = [self.model.noise(self._layout, (self.manner.seed + phrase + i) % 2**63) for i in range(2)]
        noise = slerp(ends[0], ends[1], place / PHRASE)
        # A bar stands in the half of the picture's own two bars that it is; the third and so on in the other place.
        turned = self.bars > 0 and self.bars % 2 == 0
        return torch.roll(noise, self._layout.width // 2, dims=-1) if turned else noise

    def _sounding(self, image: Tensor, tempo: TempoMap, *, first: bool) -> Bar:
        """What is new in ``image``, joined to what was played: its second half, or at first its first."""
        config, rate = self.model.config, self.sample_rate
        on_beats = tempo if config.grid == "beats" else None
        if on_beats is not None and on_beats.steady is not None:
            on_beats = TempoMap.constant(on_beats.steady)
        sound = mel_to_waveform(
            image_to_mel(image, config),
            config,
            bpm=on_beats,
            quality=self.manner.quality,
            generator=torch.Generator().manual_seed(self.manner.seed),
        )
        bar = self._beats_of_half
        line = round(float(tempo.seconds_at(bar)) * rate)
        begin, end = (0, line) if first else (line, sound.shape[-1])
        sound = self._levelled(sound, line)
        margin = round(min(MARGIN_S, self.bar_seconds / 8) * rate)
        if self._tail is None:
            joined = sound[..., : end - margin]
            fade = round(min(FADE_S, self.bar_seconds / 16) * rate)
        else:
            fade = self._tail.shape[-1]
            begin -= self._margin + fade
            joined = append(self._tail, sound[..., begin : end - margin], overlap_samples=fade)
            fade = min(fade, joined.shape[-1] // 2)
        self._margin = margin
        self._tail = joined[..., joined.shape[-1] - fade :].clone()
        places = (0.0 if first else bar) + torch.arange(self._beats + 1) * (bar / self._beats)
        beats = tuple((tempo.seconds_at(places) - begin / rate).tolist())
        new = image[..., : self._half] if first else image[..., self._half :]
        return Bar(joined[..., : joined.shape[-1] - fade], new, beats)

    def _levelled(self, sound: Tensor, line: int) -> Tensor:
        """Where the picture forgets how loud it was, as loud as the bar before; peaks are bent and not cut."""
        if self.model.config.amplitude == "power":
            first = float(sound[..., :line].square().mean().sqrt()) + 1e-9
            gain = 0.1 / first if self._level is None else self._level / first
            sound = sound * gain
            self._level = float(sound[..., line:].square().mean().sqrt())
            self._level = min(max(self._level, 0.05), 0.2)
        over = (sound.abs() - _KNEE).clamp(min=0.0)
        bent = _KNEE + (1.0 - _KNEE) * torch.tanh(over / (1.0 - _KNEE))
        return torch.where(over > 0, sound.sign() * bent, sound)


# WAS riff/pace.py: When each bar of endless music is begun, and in how many steps it is drawn: as late, and as
# well, as is safe.
#
# What is newly asked for is walked to in the first quarter of the next bar that is begun. A change that comes
# just after
# a bar was begun waits for what is left of the bar that is heard, the one that is being drawn, and the way: the
# :func:`lookahead_s`, a bar and a quarter. Where a bar is drawn in half of its time, that is two bars. It is
# less where
# there is time to begin the bar anew.

STEPS = (6, 10)  # of a bar: at least, and at most


class StreamPacer:
    """How one listener's music is kept up; the clock is the caller's.

    Attributes:
        gaps: how often the listener has had to wait.
        end: when what was sent will have been heard; None before the first bar.
    """

    def __init__(self, steps: int | None = None, *, most: int = STEPS[1]) -> None:
        """Before the first bar, which takes the least of steps, to come soon.

        Args:
            steps: of every bar; None takes as many as there is time for.
            most: that it takes then.
        """
        self._steps, self._most = steps, most
        self._step_s = math.inf  # until it is known
        self.gaps = 0
        self.end: float | None = None

    def steps(self, bar_seconds: float) -> int:
        """Denoising steps of the next bar."""
        if self._steps is not None:
            return self._steps
        return min(fitting_steps(bar_seconds, self._step_s), self._most)

    def note_sent(self, seconds: float, *, took_s: float, steps: int, now: float) -> None:
        """Count a bar that the listener has got. Who had to wait for it hears it from now on.

        Args:
            seconds: of music.
            took_s: from when it was asked for; the first bar's does not count, since a compiler may have run.
            steps: that it was drawn in.
            now: on a monotonic clock.
        """
        if self.end is None:
            self.end = now
        else:
            step_s = took_s / steps
            self._step_s = step_s if math.isinf(self._step_s) else 0.5 * (self._step_s + step_s)
        if now > self.end:
            self.gaps += 1
            self.end = now
        self.end += seconds

    def idle_s(self, bar_seconds: float, now: float) -> float:
        """Seconds from ``now`` until the next bar should be begun."""
        if self.end is None:
            return 0.0
        return max(0.0, self.end - now - lookahead_s(bar_seconds, self._bar_s(bar_seconds)))

    def has_time(self, bar_seconds: float, now: float) -> bool:
        """Whether a bar that is begun at ``now`` will be there when it is due."""
        return self.end is not None and self.end - now > _NARROW * self._bar_s(bar_seconds)

    def _bar_s(self, bar_seconds: float) -> float:
        """Seconds that the next bar will take."""
        return self._step_s * self.steps(bar_seconds)


def next_wanted(music: MusicStream, pace: StreamPacer, callback: StepCallback | None = None) -> tuple[Bar, int, float]:
    """The next bar, in as many steps as there is time for; begun anew while it may be, if something else is asked for.

    Args:
        music: that plays.
        pace: of its listener.
        callback: called at each step.

    Returns:
        The bar, the steps in which it was drawn, and the seconds that were spent on what was not wanted any more.

    Raises:
        RiffError, ModelError: as :meth:`Endless.next`.
    """
    began = begun = time.monotonic()
    while True:
        steps, asked = pace.steps(music.bar_seconds), music.asked
        music.manner = dataclasses.replace(music.manner, steps=steps)

        def look(step: int, steps: int, latents: Tensor, asked: StreamTarget = asked) -> Tensor | None:
            if music.asked is not asked and pace.has_time(music.bar_seconds, time.monotonic()):
                raise _Changed
            return None if callback is None else callback(step, steps, latents)

        try:
            return music.next(look), steps, begun - began
        except _Changed:
            begun = time.monotonic()


class _Changed(Exception):
    """What is being drawn is no longer wanted, and there is time for another."""


def _checked(station: StreamTarget) -> StreamTarget:
    """It, if there is something to play in it.

    Raises:
        RiffError: there is not, or a value is out of its range.
    """
    check_prompts(station.prompt)
    stated = parse_bpm(plain_prompt(station.prompt))
    if station.bpm is not None:
        check_number(station.bpm, "bpm", *BPM_RANGE)
    elif stated is not None:
        check_number(stated, "the prompt's tempo", *BPM_RANGE)
    if station.guidance_scale is not None:
        check_number(station.guidance_scale, "guidance_scale", 0, 50)
    if station.keyscale is not None:
        canonical_key(station.keyscale)
    return station


SHARE = 0.45  # of a bar's time, in which it is drawn where that is possible
_MARGIN = 1.5  # times what a bar usually takes, for which it is begun before it is due
_NARROW = 1.2  # and for which one that is no longer wanted is begun anew


def lookahead_s(bar_seconds: float, took_s: float) -> float:
    """Seconds before the end of what was sent at which the next bar is begun: as late as is safe, at most a bar.

    Args:
        bar_seconds: length of a bar.
        took_s: that it takes to draw one.
    """
    return min(max(_MARGIN * took_s, 0.5 * bar_seconds), bar_seconds)


def fitting_steps(bar_seconds: float, step_s: float) -> int:
    """Denoising steps for which there is time, between the least and the most of :data:`STEPS`.

    Args:
        bar_seconds: length of a bar.
        step_s: that a step takes, with its share of all the rest.
    """
    return min(max(int(SHARE * bar_seconds / step_s), STEPS[0]), STEPS[1])
