"""Windows on a canvas: every column is drawn, whole bars apart, and one window is what a plain clip is."""

import dataclasses
import types

import pytest
import torch
from conftest import tiny_unet

from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.latents import sample_noise
from riff.diffusion.sampling import PlainPrediction, choose_scheduler, denoise
from riff.diffusion.windows import CanvasPrediction, WindowLayout, canvas_noise
from riff.utils.errors import RiffError

LAYOUTS = [
    WindowLayout(8, 8, 4),
    WindowLayout(12, 8, 4),
    WindowLayout(19, 8, 4),
    WindowLayout(64, 8, 4),
    WindowLayout(40, 8, 2),
    WindowLayout(24, 6, 3),
    WindowLayout(8, 8, 4, loop=True),
    WindowLayout(12, 8, 4, loop=True),
    WindowLayout(64, 8, 4, loop=True),
    WindowLayout(4, 8, 4, loop=True),
    WindowLayout(3, 6, 3, loop=True),
    WindowLayout(16, 8, 4, pinned=(0, 8)),
    WindowLayout(44, 8, 4, pinned=(0, 36)),
]


@pytest.fixture(scope="module")
def scheduler(mini_checkpoint):
    from riff.diffusion.checkpoint import load_checkpoint

    return load_checkpoint(mini_checkpoint)[0].scheduler


def embeds(count: int = 1, seed: int = 6) -> torch.Tensor:
    return torch.randn(1, count, 24, 16, generator=torch.Generator().manual_seed(seed))


def noise_of(width: int) -> torch.Tensor:
    return sample_noise((1, 8, 4, width), generator=torch.Generator().manual_seed(5))


def draw(
    layout: WindowLayout, conditions: CanvasConditioning, scheduler, noise: torch.Tensor, steps: int = 6
) -> torch.Tensor:
    unet = tiny_unet(latent_channels=8, cross_attention_dim=16)
    own = choose_scheduler("ddim", scheduler)
    return denoise(CanvasPrediction(unet, layout, conditions), own, noise, num_inference_steps=steps)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_windows_shares_of_every_column_sum_to_one_at_every_step(layout):
    for step in range(8):
        total = torch.zeros(layout.width)
        for tile in layout.tiles(step, 8):
            total.index_add_(0, tile.columns, tile.weights)
        torch.testing.assert_close(total, torch.ones(layout.width))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_windows_have_the_training_width_and_begin_on_bars(layout):
    whole = layout.width % layout.stride == 0
    for step in range(8):
        for tile in layout.tiles(step, 8):
            assert len(tile.columns) == layout.window
            assert ((tile.columns.diff() % layout.width) == 1 % layout.width).all()
            if whole:
                assert int(tile.columns[0]) % layout.stride == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_no_window_is_drawn_twice_in_a_step(layout):
    for step in range(8):
        starts = [int(tile.columns[0]) for tile in layout.tiles(step, 8)]
        assert len(set(starts)) == len(starts)
    if layout.width == layout.window:
        assert all(len(layout.tiles(step, 8)) == 1 for step in range(6))


def test_neighbouring_steps_cut_the_canvas_at_different_bars():
    layout = WindowLayout(32, 8, 4)
    seams = [{int(tile.columns[0]) for tile in layout.tiles(step, 20)} for step in range(2)]
    assert seams[0] == {0, 8, 16, 24}
    assert seams[1] == {0, 4, 12, 20, 24}


def test_the_last_quarter_of_the_steps_fades_between_windows():
    layout = WindowLayout(32, 8, 4)
    assert [len(layout.tiles(step, 8)) for step in range(8)] == [4, 5, 4, 5, 4, 5, 7, 7]
    fading = layout.tiles(7, 8)[2]
    assert float(fading.weights.max()) < 1.0
    assert float(fading.weights[0]) < float(fading.weights[3])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_model_that_answers_with_what_it_sees_is_put_together_again(layout):
    def echo(latents, timestep, encoder_hidden_states):
        return types.SimpleNamespace(sample=latents)

    echo.device, echo.dtype = torch.device("cpu"), torch.float32
    predict = CanvasPrediction(echo, layout, CanvasConditioning(embeds(), torch.ones(1)))
    noise = noise_of(layout.width)
    for step in range(4):
        torch.testing.assert_close(predict(noise, torch.tensor(1), step, 4), noise)


def test_a_canvas_of_one_window_equals_a_plain_clip_exactly(scheduler):
    told = CanvasConditioning(embeds(), torch.tensor([3.0]), embeds(seed=8))
    plain = PlainPrediction(tiny_unet(latent_channels=8, cross_attention_dim=16), embeds()[0], embeds(seed=8)[0], 3.0)
    expected = denoise(plain, choose_scheduler("ddim", scheduler), noise_of(8), num_inference_steps=6)
    assert torch.equal(draw(WindowLayout(8, 8, 4), told, scheduler, noise_of(8)), expected)


def test_pinned_windows_are_drawn_as_plain_clips_bit_for_bit(scheduler):
    told = CanvasConditioning(
        embeds(2),
        torch.tensor([3.0, 2.0]),
        embeds(2, seed=8),
        progress=torch.cat([torch.zeros(8), torch.linspace(0, 1, 12), torch.ones(8)]),
    )
    drawn = draw(WindowLayout(28, 8, 4, pinned=(0, 20)), told, scheduler, noise_of(28))
    for station, guidance in ((0, 3.0), (1, 2.0)):
        place = slice(20 * station, 20 * station + 8)
        alone = CanvasConditioning(embeds(2)[:, [station]], torch.tensor([guidance]), embeds(2, seed=8)[:, [station]])
        assert torch.equal(drawn[..., place], draw(WindowLayout(8, 8, 4), alone, scheduler, noise_of(28)[..., place]))


def test_a_loop_has_no_beginning(scheduler):
    """Turned by a window's width before it is drawn, it is the same loop, turned."""
    told, layout = CanvasConditioning(embeds(), torch.tensor([3.0]), embeds(seed=8)), WindowLayout(24, 8, 4, loop=True)
    turned = draw(layout, told, scheduler, noise_of(24).roll(8, -1)).roll(-8, -1)
    torch.testing.assert_close(turned, draw(layout, told, scheduler, noise_of(24)), rtol=1e-4, atol=1e-4)


def test_a_loop_shorter_than_a_window_is_repeated_beside_itself():
    unet, told = tiny_unet(latent_channels=8, cross_attention_dim=16), CanvasConditioning(embeds(), torch.ones(1))
    with torch.no_grad():
        short = CanvasPrediction(unet, WindowLayout(4, 8, 4, loop=True), told)(noise_of(4), torch.tensor(500), 0, 20)
        twice = PlainPrediction(unet, embeds()[0])(noise_of(4).repeat(1, 1, 1, 2), torch.tensor(500), 0, 20)
    torch.testing.assert_close(short, twice[..., :4])


def test_a_station_counts_alone_at_its_place_and_shares_between():
    told = CanvasConditioning(embeds(3), torch.ones(3), progress=torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0, 2.75]))
    shares = told.shares(torch.arange(6))
    expected = [[1, 0.75, 0, 0, 0, 0.75], [0, 0.25, 1, 0.5, 0, 0], [0, 0, 0, 0.5, 1, 0.25]]
    torch.testing.assert_close(shares, torch.tensor(expected))  # from 2 on it goes back to the first


def test_between_stations_both_predictions_are_mixed_column_by_column():
    def answer(latents, timestep, encoder_hidden_states):
        """What it is told, in every place."""
        return types.SimpleNamespace(sample=encoder_hidden_states[:, :1, :1, None].expand(-1, 8, 4, latents.shape[-1]))

    answer.device, answer.dtype = torch.device("cpu"), torch.float32
    told = torch.tensor([10.0, 30.0]).reshape(1, 2, 1, 1)
    away = torch.tensor([1.0, 1.0]).reshape(1, 2, 1, 1)
    progress = torch.linspace(0, 1, 8)
    predict = CanvasPrediction(
        answer, WindowLayout(8, 8, 4), CanvasConditioning(told, torch.tensor([2.0, 4.0]), away, progress)
    )
    drawn = predict(noise_of(8), torch.tensor(1), 0, 4)[0, 0, 0]
    mixed, guidance = 10 + 20 * progress, 2 + 2 * progress
    torch.testing.assert_close(drawn, 1 + guidance * (mixed - 1))


def test_guidance_may_change_along_the_canvas(scheduler):
    progress = torch.cat([torch.zeros(8), torch.ones(8)])
    layout = WindowLayout(16, 8, 4, pinned=(0, 8))
    same = embeds().expand(1, 2, -1, -1)
    both = CanvasConditioning(same, torch.tensor([1.0, 4.0]), embeds(seed=8).expand(1, 2, -1, -1), progress)
    drawn = draw(layout, both, scheduler, noise_of(16))
    unguided = draw(
        WindowLayout(8, 8, 4), CanvasConditioning(embeds(), torch.ones(1)), scheduler, noise_of(16)[..., :8]
    )
    torch.testing.assert_close(drawn[..., :8], unguided, rtol=1e-4, atol=1e-4)
    assert float((drawn[..., 8:] - draw(layout, dataclasses.replace(both, guidance=torch.ones(2)), scheduler,
                                        noise_of(16))[..., 8:]).abs().max()) > 1e-3  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "guided"), [((0.0, 1.0), range(6)), ((0.1, 0.5), (1, 2)), ((0.2, 0.8), range(1, 5)), ((0.9, 0.91), ())]
)
def test_outside_of_the_guidance_interval_the_prompt_alone_is_followed(interval, guided):
    unet, layout = tiny_unet(latent_channels=8, cross_attention_dim=16), WindowLayout(8, 8, 4)
    both = CanvasConditioning(embeds(), torch.tensor([3.0]), embeds(seed=8))
    alone = CanvasConditioning(embeds(), torch.tensor([1.0]))
    for step in range(6):
        told = both if step in guided else alone
        with torch.inference_mode():
            found = CanvasPrediction(unet, layout, both, interval)(noise_of(8), torch.tensor(500), step, 6)
            expected = CanvasPrediction(unet, layout, told)(noise_of(8), torch.tensor(500), step, 6)
        assert torch.equal(found, expected)


def test_guidance_without_negative_embeddings_is_refused():
    with pytest.raises(RiffError, match="guidance is 3 without"):
        CanvasConditioning(embeds(), torch.tensor([3.0]))


@pytest.mark.parametrize(
    "fields", [{"width": 7}, {"stride": 0}, {"pinned": (-1,)}, {"pinned": (17,)}, {"window": 0}], ids=str
)
def test_a_layout_that_cannot_be_is_refused(fields):
    with pytest.raises(RiffError, match="canvas"):
        WindowLayout(**{"width": 24, "window": 8, "stride": 4, **fields})


# Noise


def test_a_canvas_begins_with_the_noise_of_a_plain_clip():
    plain = sample_noise((1, 8, 4, 8), generator=torch.Generator().manual_seed(3))
    for width in (8, 12, 40):
        noise = canvas_noise((8, 4), WindowLayout(width, 8, 4), [3])
        assert noise.shape == (1, 8, 4, width)
        assert torch.equal(noise[..., :8], plain)


def test_without_variation_the_noise_repeats_and_with_it_windows_differ():
    layout = WindowLayout(24, 8, 4)
    still, moved, new = (canvas_noise((8, 4), layout, [3], variation=v) for v in (0.0, 0.3, 1.0))
    assert torch.equal(still[..., :8], still[..., 16:])
    cosine = torch.nn.functional.cosine_similarity
    first = still[..., :8].flatten()
    # The arc between two normal vectors is about a right angle, of which 0.3 is 27 degrees.
    assert float(cosine(first, moved[..., 8:16].flatten(), dim=0)) == pytest.approx(0.89, abs=0.05)
    assert abs(float(cosine(first, new[..., 8:16].flatten(), dim=0))) < 0.2


def test_noise_between_stations_is_normal_and_exactly_theirs_at_the_ends():
    layout = WindowLayout(800, 8, 4)
    progress = torch.cat([torch.zeros(8), torch.linspace(0, 1, 784), torch.ones(8)])
    noise = canvas_noise((8, 4), layout, [1, 2], starts=(0, 792), progress=progress)
    for seed, place in ((1, slice(0, 8)), (2, slice(792, 800))):
        assert torch.equal(noise[0, ..., place], canvas_noise((8, 4), WindowLayout(8, 8, 4), [seed])[0])
    spread = noise.reshape(8 * 4, 50, 16).permute(1, 0, 2).reshape(50, -1).std(1)
    assert float((spread - 1).abs().max()) < 0.15  # five standard deviations of 512 numbers' spread


def test_a_walk_of_noise_is_symmetric():
    layout, progress = WindowLayout(16, 8, 4), torch.linspace(0, 1, 16)
    there = canvas_noise((8, 4), layout, [1, 2], starts=(0, 0), progress=progress, variation=0.0)
    back = canvas_noise((8, 4), layout, [2, 1], starts=(0, 0), progress=1 - progress, variation=0.0)
    torch.testing.assert_close(there, back)


def test_the_same_seed_at_both_stations_keeps_the_noise_still():
    layout = WindowLayout(24, 8, 4)
    progress = torch.linspace(0, 1, 24)
    noise = canvas_noise((8, 4), layout, [1, 1], starts=(0, 16), progress=progress, variation=0.0)
    torch.testing.assert_close(noise, canvas_noise((8, 4), layout, [1], variation=0.0))
