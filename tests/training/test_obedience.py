"""Teaching a denoiser to be recognised: what a caption tells, what a judge learns, and that its verdict teaches."""

import torch
from torch import Tensor

from riff.diffusion.checkpoint import load_checkpoint
from riff.music.theory import KEYS
from riff.train.loop import train
from riff.train.settings import LoopSettings
from training.recipes.denoiser import Denoiser, LatentSet
from training.recipes.obedience import (
    NONE,
    LatentJudge,
    ObedienceLoss,
    ObedienceObjective,
    accuracies,
    blemish,
    judgement,
    make_lessons,
    told_of,
    train_judge,
    with_short_captions,
)

SETTINGS = LoopSettings(
    steps=40, learning_rate=3e-3, warmup_steps=1, ema_decay=0.5, mixed_precision="no", checkpointing_steps=40
)


def clip(lead: str, captions: list[str]) -> dict[str, object]:
    return {"genre": "funk", "lead": lead, "keyscale": "F# minor", "captions": captions}


def planted(count: int) -> tuple[Tensor, list[dict[str, object]]]:
    """Latents that are high above where the flute leads and below where the piano does."""
    latents = 0.3 * torch.randn(count, 8, 4, 8, generator=torch.Generator().manual_seed(0))
    clips = []
    for number in range(count):
        lead = ("flute", "piano")[number % 2]
        latents[number, :, slice(0, 2) if lead == "flute" else slice(2, 4)] += 1.5
        clips.append(clip(lead, [f"funk, {lead}", "funk"]))
    return latents.half(), clips


def test_a_caption_tells_the_lead_by_any_of_its_names_and_the_key_by_note_and_mode() -> None:
    told = told_of(
        [
            clip(
                "tenor saxophone",
                ["Funk, tenor SAXOPHONE", "funk in F# minor", "g flat major saxophone", "a minor issue"],
            ),
            clip("", ["funk", "flute in c major", "funk", "bb maj"]),
        ]
    )
    assert told[0, :2].tolist() == [[True, False], [False, True]]
    assert told[0, 2, 1] and told[0, 3, 1]
    assert not told[1, :, 0].any(), "without a lead none is named"
    assert told[1, :, 1].tolist() == [False, True, False, True]


def test_what_is_not_told_counts_nothing_in_a_judgement() -> None:
    logits = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0, 0.0]]), torch.zeros(1, 24)]
    alone = judgement(logits, torch.tensor([[0, NONE, NONE]]))
    torch.testing.assert_close(alone, torch.log1p(torch.exp(torch.tensor(-2.0))))
    torch.testing.assert_close(
        judgement(logits, torch.tensor([[NONE, NONE, 3]]), (1.0, 1.0, 0.5)), 0.5 * torch.tensor(24.0).log()
    )
    assert judgement(logits, torch.full((1, 3), NONE)) == 0.0


def test_short_captions_say_genre_and_lead_and_no_more() -> None:
    found = with_short_captions([clip("flute", ["a", "b"]), clip("", ["c", "d"])])
    assert [each["captions"] for each in found] == [
        ["a", "b", "funk, flute", "funk with flute"],
        ["c", "d", "funk", "funk"],
    ]
    assert told_of(found)[:, :, 0].tolist() == [[False, False, True, True], [False] * 4]


def test_what_is_recognised_already_asks_nothing_more() -> None:
    logits = [torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 3), torch.zeros(2, 24)]
    targets = torch.tensor([[0, NONE, NONE], [0, NONE, NONE]])
    right, wrong = torch.log1p(torch.exp(torch.tensor([-2.0, 2.0])))
    torch.testing.assert_close(judgement(logits, targets), (right + wrong) / 2)
    torch.testing.assert_close(judgement(logits, targets, content=0.2), (wrong - 0.2) / 2)


def test_accuracy_is_the_share_of_what_has_a_truth_and_names_are_numbered_as_those_who_taught() -> None:
    clips = [{"genre": genre, "lead": lead, "keyscale": "C major"} for genre, lead in (("b", "oboe"), ("a", ""))]
    latents = torch.zeros(2, 1, 4, 4)
    alone = make_lessons(latents, clips)
    assert alone.targets[:, :2].tolist() == [[1, 0], [0, NONE]]
    known = [*clips, {"genre": "c", "lead": "flute", "keyscale": "C major"}]
    lessons = make_lessons(latents, [*clips[:1], {"genre": "d", "lead": "zither", "keyscale": "D minor"}], known)
    assert lessons.targets[:, :2].tolist() == [[1, 1], [NONE, NONE]] and lessons.counts[:2] == (3, 2)

    def says_second(part: Tensor) -> list[Tensor]:
        return [torch.eye(count)[1].expand(len(part), count) for count in lessons.counts]

    assert accuracies(says_second, lessons) == [1.0, 1.0, 0.0]


def test_blemishes_are_small_differ_and_come_again_with_their_seed() -> None:
    latents = torch.randn(16, 8, 4, 8, generator=torch.Generator().manual_seed(1))
    first, again = (blemish(latents, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, again)
    distances = (first - latents).square().mean((1, 2, 3)).sqrt()
    assert distances.max() < 1.0
    assert distances.min() > 0.0


def test_a_judge_learns_a_planted_lead_and_its_verdict_teaches_a_denoiser(mini_checkpoint, tmp_path) -> None:
    latents, clips = planted(64)
    lessons = make_lessons(latents, clips)
    assert lessons.counts == (1, 2, len(KEYS))
    judge = train_judge(lessons, SETTINGS, tmp_path / "judge", batch_size=16)
    assert isinstance(judge, LatentJudge)
    with torch.no_grad():
        assert torch.equal(judge(latents.float())[1].argmax(1), lessons.targets[:, 1])
    parts, _, _ = load_checkpoint(mini_checkpoint)
    texts = [text for each in clips for text in each["captions"]] + [""]
    ids = parts.tokenizer(texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt").input_ids
    pictures = LatentSet(latents, ids[:-1].reshape(64, 2, -1).int(), ids[-1].int())
    loss = ObedienceLoss(parts.scheduler, judge, lessons, pictures, told_of(clips), ObedienceObjective(weight=1.0))
    denoiser = Denoiser(parts.unet.float(), parts.text_encoder.float().requires_grad_(False))

    def verdict() -> float:
        with torch.no_grad():
            drawn = [float(loss.verdict(denoiser, torch.Generator().manual_seed(seed))) for seed in range(8)]
        return sum(drawn) / len(drawn)

    before = verdict()
    assert train(denoiser, loss, SETTINGS, tmp_path / "obedience")
    assert verdict() < 0.92 * before
