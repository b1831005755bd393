"""Endless music: bars that join to the sample, beats that go on, and how soon a change has arrived."""

import copy
import itertools
import time

import numpy as np
import pytest
import torch

from riff.diffusion.model import DiffusionModel
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import WAY, Bar, MusicStream, StreamPacer, next_wanted
from riff.utils.errors import RiffError


def target(
    prompt: str, bpm: float | None = None, key: str | None = None, guidance: float | None = None
) -> StreamRequest:
    """A quick stream's request."""
    return StreamRequest(
        prompt=prompt, bpm=bpm, key=key, guidance_scale=guidance, seed=5, num_inference_steps=2, quality="fast"
    )


def clicks(model: DiffusionModel, noise, layout, conditions, seeds, options, *, original=None) -> torch.Tensor:
    """A picture with a short noise on each beat, in place of what a model of random weights would draw."""
    for step in range(options.steps if options.callback else 0):
        options.callback(step, options.steps, noise)
    image = torch.zeros(1, model.config.channels, model.config.n_mels, layout.width * model.factor)
    for column in range(model.config.frames_per_beat // 4):
        image[..., model.config.n_mels // 2 :, column :: model.config.frames_per_beat] = 0.7
    return image


def onsets(sound: np.ndarray, rate: int) -> list[float]:
    """When short noises begin, in seconds: where 5 ms are loud and the tenth of a second before was quiet."""
    hop = rate // 200
    energy = np.square(sound[: len(sound) // hop * hop]).reshape(-1, hop).mean(1)
    loud = energy > 0.05 * np.median(np.sort(energy)[-len(energy) // 10 :])
    return [place * hop / rate for place in np.flatnonzero(loud) if not loud[max(0, place - 20) : place].any()]


@pytest.fixture
def click_track(pipe, monkeypatch):
    monkeypatch.setattr(DiffusionModel, "sample_images", clicks)
    return MusicStream(pipe.model, target("jazz", bpm=120.0))


def joined(bars: list[Bar], rate: int) -> tuple[np.ndarray, list[float]]:
    """All bars in a row, and when their beats come."""
    starts = np.cumsum([0, *(bar.waveform.shape[-1] for bar in bars)]) / rate
    beats = [start + beat for start, bar in zip(starts, bars, strict=False) for beat in bar.beats[:-1]]
    return torch.cat([bar.waveform for bar in bars], -1)[0].numpy(), beats


def test_every_bar_is_a_bar_and_a_tempo_is_walked_to_in_a_quarter_of_one(pipe) -> None:
    music = MusicStream(pipe.model, target("jazz", bpm=120.0))
    bars = [music.next(), music.next()]
    music.update(bpm=60)
    bars += [music.next() for _ in range(3)]
    lengths = [bar.waveform.shape[-1] / music.sample_rate for bar in bars]
    assert 0 < 2.0 - lengths[0] < 0.2  # what is kept back to be joined
    assert lengths[1] == pytest.approx(2.0, abs=0.001)
    # A beat from 120 to 60 takes 60 / 60 * ln 2 seconds, and three at 60 three.
    assert lengths[2] == pytest.approx(np.log(2) + 3, abs=0.05)
    assert lengths[3] == lengths[4] == pytest.approx(4.0, abs=0.001)
    for before, after in itertools.pairwise(bars):
        late = before.beats[-1] - before.waveform.shape[-1] / music.sample_rate
        assert after.beats[0] == pytest.approx(late, abs=1.5 / music.sample_rate), "beat one is where the bar ended"
    again = MusicStream(pipe.model, target("jazz", bpm=120.0))
    assert torch.equal(again.next().waveform, bars[0].waveform)


def test_the_beat_goes_on_over_joins_and_through_a_change_of_tempo(click_track) -> None:
    bars = [click_track.next() for _ in range(3)]
    click_track.update(bpm=90)
    bars += [click_track.next() for _ in range(3)]
    sound, beats = joined(bars, click_track.sample_rate)
    assert onsets(sound, click_track.sample_rate) == pytest.approx(beats, abs=0.02)
    assert np.diff(beats)[:12] == pytest.approx(0.5, abs=1e-3)
    assert np.diff(beats)[13:] == pytest.approx(60 / 90, abs=1e-3)


def test_there_is_no_hole_where_bars_join(pipe, monkeypatch) -> None:
    even = lambda model, noise, layout, *_, **__: torch.full(  # noqa: E731
        (1, model.config.channels, model.config.n_mels, layout.width * model.factor), 0.7
    )
    monkeypatch.setattr(DiffusionModel, "sample_images", even)
    music = MusicStream(pipe.model, target("jazz", bpm=120.0))
    sound, _ = joined([music.next() for _ in range(4)], music.sample_rate)
    hop = music.sample_rate // 50
    loudness = np.sqrt(np.square(sound[: len(sound) // hop * hop]).reshape(-1, hop).mean(1))[5:]
    assert loudness.min() > 0.4 * np.median(loudness) and loudness.max() < 2.0 * np.median(loudness)


@pytest.mark.parametrize("moment", [None, 0, 1])
def test_of_what_is_sent_after_a_change_it_has_arrived_within_a_bar_and_a_quarter(click_track, moment) -> None:
    """Counted in bars, whenever the change comes: between two, or at a step of one that is being drawn."""
    click_track.next()
    sent = []

    def change(step: int, steps: int, latents: torch.Tensor) -> None:
        if step == moment and click_track.bpm == 120:
            click_track.set_target(target("techno", bpm=90.0))

    if moment is None:
        click_track.set_target(target("techno", bpm=90.0))
    sent = [click_track.next(change) for _ in range(3)]
    steps = [step for bar in sent for step in np.diff(bar.beats)]
    arrived = next(place for place in range(len(steps)) if np.allclose(steps[place:], 60 / 90, atol=1e-6))
    assert arrived / 4 == (WAY if moment is None else 1 + WAY)


def test_a_prompt_a_key_and_a_guidance_are_walked_to_as_a_tempo_is(pipe, monkeypatch) -> None:
    told = []
    conditions = DiffusionModel.conditions

    def noted(model: DiffusionModel, samples, guidance, *rest, **options):
        told.append(([reading.prompt for reading in samples[0]], list(guidance), options.get("progress")))
        return conditions(model, samples, guidance, *rest, **options)

    monkeypatch.setattr(DiffusionModel, "conditions", noted)
    music = MusicStream(pipe.model, target("jazz", 120.0, None, 2.0))
    music.next()
    music.set_target(target("techno", 120.0, "C minor", 5.0))
    for _ in range(2):
        music.next()
    assert [row[:2] for row in told] == [(["jazz"], [2.0]), (["jazz", "techno"], [2.0, 5.0]), (["techno"], [5.0])]
    along = told[1][2]
    half = len(along) // 2
    assert bool((along[:half] == 0).all()) and bool((along[half + round(WAY * half) :] == 1).all())
    assert bool((along.diff() >= 0).all())


def test_a_bar_that_is_not_wanted_leaves_the_music_as_it_was(click_track, pipe, monkeypatch) -> None:
    monkeypatch.undo()
    music = MusicStream(pipe.model, target("jazz", bpm=240.0))
    music.next()
    other = copy.copy(music)
    other.set_target(target("techno", bpm=300.0))
    other.next()

    class Stopped(Exception):
        pass

    def stop(step: int, steps: int, latents: torch.Tensor) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        music.next(stop)
    undisturbed = MusicStream(pipe.model, target("jazz", bpm=240.0))
    undisturbed.next()
    assert torch.equal(music.next().waveform, undisturbed.next().waveform)


@pytest.mark.parametrize(
    "wrong",
    [("",), ("((",), ("jazz, 999 bpm",), ("jazz", 5.0), ("jazz", None, "H"), ("jazz", None, None, -1.0)],
)
def test_where_nothing_can_be_led_to_it_stays(click_track, wrong) -> None:
    click_track.next()
    with pytest.raises(RiffError):
        click_track.set_target(target(*wrong))
    with pytest.raises(RiffError):
        click_track.update("jazz, 999 bpm")
    assert np.diff(click_track.next().beats) == pytest.approx(0.5)


def test_a_prompt_that_says_no_tempo_keeps_it_and_one_that_does_is_obeyed(click_track) -> None:
    click_track.next()
    click_track.update("techno")
    click_track.next()
    assert click_track.bpm == 120
    click_track.update("techno, 90 bpm")
    click_track.next()
    assert click_track.bpm == 90
    click_track.update(bpm=100)
    click_track.update("jazz")
    click_track.next()
    assert click_track.bpm == 100


@pytest.mark.parametrize(("ahead", "drawn"), [(100.0, [0, 0, 1]), (0.0, [0, 1])])
def test_a_bar_that_is_not_wanted_any_more_is_begun_anew_where_there_is_time(click_track, ahead, drawn) -> None:
    pace, steps = StreamPacer(2), []
    pace.note_sent(0.0, took_s=0.0, steps=2, now=time.monotonic())
    pace.note_sent(ahead, took_s=0.2, steps=2, now=time.monotonic())

    def change(step: int, total: int, latents: torch.Tensor) -> None:
        steps.append(step)
        if len(steps) == 1:
            click_track.set_target(target("techno", bpm=90.0))

    click_track.next()
    bar, taken, wasted_s = next_wanted(click_track, pace, change)
    assert steps == drawn and taken == 2
    walked = np.diff(bar.beats)[-1] == pytest.approx(60 / 90)
    assert walked == (ahead > 0) and (wasted_s > 0) == (ahead > 0)
