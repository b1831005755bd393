"""Music without an end, bar by bar, that can be led elsewhere while it plays.

Each bar is generated in a window of the training width. Its first half is the bar before, which stays as it is, so the
music goes on from what was played. A new target is reached in the first quarter of the next bar that is begun.

A change that comes just after a bar was begun waits for the rest of the bar that is playing, for the one that is being
generated, and for that quarter. Bars are begun as late as is safe (:func:`lookahead_s`), so a bar and a quarter
after the
change is in what was sent. Where a bar takes half of its own time, the listener hears it within two bars; sooner where
there is time to begin the bar again (:func:`next_wanted`).
"""

import dataclasses
import math
import time

import torch
from torch import Tensor

from riff.audio.splice import append
from riff.diffusion.latents import image_to_latents, seeded_generator, slerp
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.diffusion.sampling import Original, StepCallback
from riff.diffusion.windows import training_width
from riff.music.theory import parse_bpm
from riff.prompt.interpret import ParsedPrompt
from riff.prompt.syntax import plain_prompt
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.tempo import TempoMap
from riff.tasks.requests import StreamRequest
from riff.tasks.text_to_music import new_seed
from riff.utils.errors import RiffError

WAY = 0.25  # of a bar, in which a new target is reached
MARGIN_S = 0.1  # before the end of an image, where its sound is not yet that of an end
FADE_S = 0.03
PHRASE = 8  # bars over which the noise goes from one seed to the next
STEPS = (6, 10)  # of a bar: at least, and at most
SHARE = 0.45  # of a bar's time, in which it is generated where that is possible
_KNEE = 0.8
_MARGIN = 1.5  # times what a bar usually takes, for which it is begun before it is due
_NARROW = 1.2  # and for which one that is no longer wanted is begun again


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar; it is played from where the one before ended, to the sample.

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
    """One listener's music. :meth:`update` may be called from another thread than :meth:`next`.

    A shallow copy goes on by itself: a bar that one of them generates and discards leaves the other as it was.

    Attributes:
        target: where the music is led.
        steps: denoising steps of a bar; may be changed between bars.
        sample_rate: of the sound.
        bars: how many were generated.
    """

    def __init__(self, model: DiffusionModel, request: StreamRequest) -> None:
        self.model, self.sample_rate = model, model.config.sample_rate
        self.seed = new_seed() if request.seed is None else request.seed
        self.steps = request.num_inference_steps or STEPS[1]
        self.target = self._reached = request
        self._reading = model.interpret(request.prompt, bpm=request.bpm, key=request.key, seed=self.seed)
        config = model.config
        self._beats = self._reading.beats_per_bar
        self._half = training_width(config, self._beats) // 2
        self._beats_of_half = self._half / config.frames_per_beat if config.grid == "beats" else float(self._beats)
        self._layout = model.layout(2 * self._half, beats_per_bar=self._beats)
        self.bars = 0
        self._context: Tensor | None = None
        self._glide = (self.bpm, self.bpm)
        self._tail: Tensor | None = None
        self._margin = 0
        self._level: float | None = None

    @property
    def bpm(self) -> float:
        """Tempo at the end of the last bar; on the seconds grid, that at which half an image is a bar."""
        config = self.model.config
        if config.grid == "beats":
            return self._reading.bpm
        return self._reading.beats_per_bar * 60.0 * config.sample_rate / (self._half * config.hop_length)

    @property
    def bar_seconds(self) -> float:
        """Length of a bar at this tempo."""
        return self._beats_of_half * 60.0 / self.bpm

    def update(self, prompt: str | None = None, bpm: float | None = None) -> None:
        """Go to another prompt or tempo, or both; a prompt that states no tempo keeps the present one.

        Raises:
            RiffError: as :meth:`set_target`.
        """
        if prompt is not None:
            kept = None if self.target is self._reached else self.target.bpm
            target = dataclasses.replace(self.target, prompt=prompt, bpm=kept if bpm is None else bpm)
        else:
            target = dataclasses.replace(self.target, bpm=self.target.bpm if bpm is None else bpm)
        self.set_target(target)

    def set_target(self, target: StreamRequest) -> None:
        """Go there in the next bar that is begun; the seed, the steps and the quality stay.

        Raises:
            RiffError: the tempo is to change, but the model's images have a fixed clock.
        """
        fixed = {name: getattr(self.target, name) for name in ("seed", "num_inference_steps", "quality")}
        target = dataclasses.replace(target, **fixed)
        if target == self.target:
            return
        if self.model.config.grid == "seconds" and target.bpm not in (None, self.target.bpm):
            raise RiffError("this model's images have a fixed clock; the tempo of a stream cannot change")
        self.target = target

    def next(self, callback: StepCallback | None = None) -> Bar:
        """The next bar, which goes to the target there is when it is begun. If it raises, nothing has changed.

        Raises:
            RiffError: a prompt cannot be read.
            ModelError: the model gave numbers that are not finite.
        """
        target, reading = self.target, self._reading
        if target is not self._reached:
            reading = self._interpret(target)
        image = self._generate(reading, target, callback)
        bar, first, now = self._beats_of_half, self._context is None, self.bpm
        self._reading, self._reached = reading, target
        before, self._glide = self._glide, (self.bpm if first else now, self.bpm)
        knots = [(0.0, before[0]), (WAY * bar, before[1]), (bar, self._glide[0]), ((1 + WAY) * bar, self.bpm)]
        made = self._to_bar(image, TempoMap.glide(knots[2:] if first else knots), first=first)
        self._context = made.image.clone()
        self.bars += 1
        return made

    def _interpret(self, target: StreamRequest) -> ParsedPrompt:
        """A target's prompt; one that states no tempo keeps the present one, and the metre stays."""
        bpm = target.bpm
        if bpm is None and parse_bpm(plain_prompt(target.prompt)) is None:
            bpm = self._reading.bpm
        reading = self.model.interpret(target.prompt, bpm=bpm, key=target.key, seed=self.seed)
        return dataclasses.replace(reading, beats_per_bar=self._beats)

    def _generate(self, reading: ParsedPrompt, target: StreamRequest, callback: StepCallback | None) -> Tensor:
        """``(C, M, N)``: the last bar as it was and the next one, or two new ones."""
        model, original, width = self.model, None, self._layout.width
        if self._context is not None:
            filled = torch.cat([self._context, torch.zeros_like(self._context)], dim=-1)
            mask = (torch.arange(width) >= width // 2).float().expand(model.latent_rows[1], -1)
            original = Original(image_to_latents(filled[None], model.components.vae), 1.0, mask)
        ends = (self._reached, target)
        guidance = [model.default_guidance if end.guidance_scale is None else end.guidance_scale for end in ends]
        negative = [end.negative_prompt or "" for end in ends]
        if target is self._reached or self._context is None:
            conditions = model.conditions([[reading]], guidance[1:], negative[1:])
        else:
            half = width // 2
            along = ((torch.arange(width) - half + 0.5) / (WAY * half)).clamp(0.0, 1.0)
            conditions = model.conditions([[self._reading, reading]], guidance, negative, progress=along)
        noise, seeds = self._noise(), [self.seed]
        image = model.sample_images(
            noise, self._layout, conditions, seeds, DenoiseOptions(self.steps, callback), original=original
        )[0]
        return image if self._context is None else torch.cat([self._context, image[..., self._half :]], dim=-1)

    def _noise(self) -> Tensor:
        """Noise that goes on an arc from seed to seed, so that the music changes a little with each bar."""
        phrase, place = divmod(self.bars, PHRASE)
        seeds = [self._reading.noise_seed((self.seed + phrase + i) % 2**63) for i in range(2)]
        ends = [self.model.noise(self._layout, seed) for seed in seeds]
        noise = slerp(ends[0], ends[1], place / PHRASE)
        # A bar stands in that half of the image's two bars which is its own; the third and so on in the other half.
        turned = self.bars > 0 and self.bars % 2 == 0
        return torch.roll(noise, self._layout.width // 2, dims=-1) if turned else noise

    def _to_bar(self, image: Tensor, tempo: TempoMap, *, first: bool) -> Bar:
        """What is new in ``image``, joined to what was played: its second half, or at first its first."""
        config, rate = self.model.config, self.sample_rate
        on_beats = tempo if config.grid == "beats" else None
        if on_beats is not None and on_beats.steady is not None:
            on_beats = TempoMap.constant(on_beats.steady)
        sound = mel_to_waveform(
            image_to_mel(image, config),
            config,
            bpm=on_beats,
            quality=self.target.quality,
            generator=seeded_generator(self.seed),
            vocoder=self.model.vocoder,
        )
        bar = self._beats_of_half
        line = round(float(tempo.seconds_at(bar)) * rate)
        begin, end = (0, line) if first else (line, sound.shape[-1])
        sound = self._level_sound(sound, line)
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

    def _level_sound(self, sound: Tensor, line: int) -> Tensor:
        """As loud as the bar before where the image does not keep the level; peaks are bent and not cut."""
        if self.model.config.amplitude == "power":
            first = float(sound[..., :line].square().mean().sqrt()) + 1e-9
            gain = 0.1 / first if self._level is None else self._level / first
            sound = sound * gain
            self._level = float(sound[..., line:].square().mean().sqrt())
            self._level = min(max(self._level, 0.05), 0.2)
        over = (sound.abs() - _KNEE).clamp(min=0.0)
        bent = _KNEE + (1.0 - _KNEE) * torch.tanh(over / (1.0 - _KNEE))
        return torch.where(over > 0, sound.sign() * bent, sound)


class StreamPacer:
    """How one listener's music is kept up; the clock is the caller's.

    Attributes:
        gaps: how often the listener has had to wait.
        end: when what was sent will have been played; None before the first bar.
    """

    def __init__(self, steps: int | None = None, *, most: int = STEPS[1]) -> None:
        """Before the first bar, with the fewest steps, so that it comes soon.

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
        """Count a bar that was sent. If the listener had to wait for it, it is heard from now on.

        Args:
            seconds: of music.
            took_s: from its request to its end; the first bar's does not count, since a compiler may have run.
            steps: in which it was generated.
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


def next_wanted(music: MusicStream, pacer: StreamPacer, callback: StepCallback | None = None) -> tuple[Bar, int, float]:
    """The next bar, in as many steps as there is time for; begun again if the target changes and there is time.

    Args:
        music: the stream.
        pacer: of its listener.
        callback: called at each step.

    Returns:
        The bar, its steps, and the seconds that were spent on bars that were given up.

    Raises:
        RiffError, ModelError: as :meth:`MusicStream.next`.
    """
    began = begun = time.monotonic()
    while True:
        steps, target = pacer.steps(music.bar_seconds), music.target
        music.steps = steps

        def look(step: int, steps: int, latents: Tensor, target: StreamRequest = target) -> Tensor | None:
            if music.target is not target and pacer.has_time(music.bar_seconds, time.monotonic()):
                raise _Changed
            return None if callback is None else callback(step, steps, latents)

        try:
            return music.next(look), steps, begun - began
        except _Changed:
            begun = time.monotonic()


class _Changed(Exception):
    """The bar is no longer wanted, and there is time for another."""


def lookahead_s(bar_seconds: float, took_s: float) -> float:
    """Seconds before the end of what was sent at which the next bar is begun: as late as is safe, at most a bar.

    Args:
        bar_seconds: length of a bar.
        took_s: that it takes to generate one.
    """
    return min(max(_MARGIN * took_s, 0.5 * bar_seconds), bar_seconds)


def fitting_steps(bar_seconds: float, step_s: float) -> int:
    """Denoising steps for which there is time, between the least and the most of :data:`STEPS`.

    Args:
        bar_seconds: length of a bar.
        step_s: that a step takes, with its share of all the rest.
    """
    return min(max(int(SHARE * bar_seconds / step_s), STEPS[0]), STEPS[1])
