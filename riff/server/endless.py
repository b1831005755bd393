"""Music without an end, bar by bar, that can be led elsewhere while it plays.

Each bar is drawn in a window of the training width whose first half is the bar before it, which stays as it is, so the
music goes on from what was heard. A new prompt or tempo is walked to within the next bar that is drawn.
"""

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.checks import BPM_RANGE, check_number
from riff.diffusion import Original, StepCallback
from riff.errors import RiffError
from riff.image import image_to_mel
from riff.inversion import Quality
from riff.latents import image_to_latents, slerp
from riff.model import Sampling
from riff.music import parse_bpm
from riff.plan import usual_columns
from riff.reading import Reading, read_prompt
from riff.request import check_prompts
from riff.spectrogram import mel_to_waveform
from riff.splice import append
from riff.tempo import TempoMap
from riff.weighting import plain_prompt

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

MARGIN_S = 0.1  # before the end of a stretch, where its sound is not yet that of an end
FADE_S = 0.03
PHRASE = 8  # bars over which the noise goes from one seed to the next
_KNEE = 0.8


@dataclasses.dataclass(frozen=True)
class Manner:
    """What does not change while a stream plays.

    Attributes:
        seed: of everything.
        steps: denoising steps of a bar.
        guidance_scale: weight of the prompt; None is the model's usual.
        quality: of the step from picture to sound.
    """

    seed: int
    steps: int = 10
    guidance_scale: float | None = None
    quality: Quality = "fast"


class Endless:
    """One stream's music. :meth:`steer` may be called from another thread than :meth:`next`.

    Attributes:
        sample_rate: of the sound.
        bpm: tempo at the end of what was drawn.
        bar_seconds: length of a bar at that tempo.
    """

    def __init__(self, pipe: "RiffPipeline", prompt: str, *, bpm: float | None, manner: Manner) -> None:
        self.model, self.manner, self.sample_rate = pipe.model, manner, pipe.sampling_rate
        self._reading = self._read(prompt, bpm)
        self._wanted: tuple[str, float | None] | None = None
        config = self.model.config
        self._beats = self._reading.beats_per_bar
        self._window = usual_columns(config, self._beats)
        self._half = self._window // 2
        self._beats_of_half = self._half / config.frames_per_beat if config.grid == "beats" else float(self._beats)
        self._layout = self.model.layout(self._window, beats_per_bar=self._beats)
        self._bar = 0
        self._context: Tensor | None = None
        self._context_tempo = (self.bpm, self.bpm)
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
        """Walk to another prompt or tempo, or both, from the next bar on.

        Raises:
            RiffError: there is nothing to play in the prompt, or the model's pictures know no tempo.
        """
        if bpm is not None and self.model.config.grid == "seconds":
            raise RiffError("this model's pictures have a fixed clock; a tempo cannot be walked to")
        if prompt is not None:
            check_prompts(prompt)
            stated = parse_bpm(plain_prompt(prompt))
            if bpm is None and stated is not None:
                check_number(stated, "the prompt's tempo", *BPM_RANGE)
        before, tempo = self._wanted or (self._reading.prompt, None)
        self._wanted = (before if prompt is None else prompt, tempo if bpm is None else bpm)

    def next(self, callback: StepCallback | None = None) -> Tensor:
        """The next stretch ``(C, T)``, which begins where the last one ended: two bars at first, then one at a time.

        Raises:
            RiffError: a prompt cannot be read.
            ModelError: the model drew numbers that are not finite.
        """
        sampling = Sampling(self.manner.steps, callback)
        wanted, target = self._wanted, self._reading
        if self._context is not None and wanted is not None:
            target = self._target(*wanted)
        image = self._draw(target, sampling)
        before, now = self._context_tempo, self.bpm
        self._reading = target
        if self._wanted is wanted:
            self._wanted = None
        tempo = (now, self.bpm)
        first = before if self._context is not None else (now, now)
        bar = self._beats_of_half
        knots = [(0.0, first[0]), (bar, first[1]), (2 * bar, tempo[1])]
        sound = self._stretch(image, TempoMap.glide(knots))
        self._context, self._context_tempo = image[..., self._half :].clone(), tempo
        self._bar += 1
        return sound

    def _read(self, prompt: str, bpm: float | None) -> Reading:
        check_prompts(prompt)
        model = self.model
        return read_prompt(prompt, bpm=bpm, keyscale=None, parts=model.parts, prior=model.prior)

    def _target(self, prompt: str, bpm: float | None) -> Reading:
        """A prompt that says no tempo keeps the present one; the metre stays."""
        if bpm is None and parse_bpm(plain_prompt(prompt)) is None:
            bpm = self._reading.bpm
        return dataclasses.replace(self._read(prompt, bpm), beats_per_bar=self._beats)

    def _draw(self, target: Reading, sampling: Sampling) -> Tensor:
        """``(C, M, window)``: the last bar as it was and the next one, or two new ones."""
        model, start, original, width = self.model, self._reading, None, self._layout.width
        if self._context is not None:
            filled = torch.cat([self._context, torch.zeros_like(self._context)], dim=-1)
            mask = (torch.arange(width) >= width // 2).float().expand(model.latent_rows[1], -1)
            original = Original(image_to_latents(filled[None], model.parts.vae), 1.0, mask)
        guidance = model.default_guidance if self.manner.guidance_scale is None else self.manner.guidance_scale
        if target is start:
            conditions = model.conditions([[start]], [guidance], [""])
        else:
            half = width // 2
            along = ((torch.arange(width) - half + 0.5) / half).clamp(0.0, 1.0)
            conditions = model.conditions([[start, target]], [guidance] * 2, [""] * 2, progress=along)
        drawn = model.draw(self._noise(), self._layout, conditions, [self.manner.seed], sampling, original=original)[0]
        return drawn if self._context is None else torch.cat([self._context, drawn[..., self._half :]], dim=-1)

    def _noise(self) -> Tensor:
        """Noise that goes on an arc from seed to seed, so that the music changes a little with each bar."""
        phrase, place = divmod(self._bar, PHRASE)
        ends = [self.model.noise(self._layout, (self.manner.seed + phrase + i) % 2**63) for i in range(2)]
        noise = slerp(ends[0], ends[1], place / PHRASE)
        # Every other bar stands in the other half of the picture's own two bars.
        return torch.roll(noise, self._layout.width // 2, dims=-1) if self._bar % 2 else noise

    def _stretch(self, image: Tensor, tempo: TempoMap) -> Tensor:
        """The sound of what is new in ``image``, joined to what was played."""
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
        line = round(float(tempo.seconds_at(self._beats_of_half)) * rate)
        sound = self._levelled(sound, line)
        fade = round(min(FADE_S, self.bar_seconds / 16) * rate)
        margin = round(min(MARGIN_S, self.bar_seconds / 8) * rate)
        if self._tail is None:
            joined = sound[..., : sound.shape[-1] - margin]
        else:
            fade = self._tail.shape[-1]
            begin = line - self._margin - fade
            joined = append(self._tail, sound[..., begin : sound.shape[-1] - margin], overlap_samples=fade)
            fade = min(fade, joined.shape[-1] // 2)
        self._margin = margin
        self._tail = joined[..., joined.shape[-1] - fade :].clone()
        return joined[..., : joined.shape[-1] - fade]

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
