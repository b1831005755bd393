"""The first rung: words become prompt embeddings, and riff says which words have no room."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.prompt.syntax import WeightedText, strip_weights

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

# How many times a prompt may be as long as one that Stable Diffusion was trained on.
CHUNKS = 3
# A mean this small beside the embeddings' size is chance, and no measure of anything.
_MEAN_COUNTS = 0.02


@torch.no_grad()  # and not inference mode: embeddings may be trained on
def embed_prompt(prompts: list[str], tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel") -> Tensor:
    """Encode prompts as Stable Diffusion does: padded to the tokenizer's length, last hidden state, no mask.

    Args:
        prompts: B strings; "" is the unconditional prompt. Words past the length are cut
            (:func:`dropped_words`).
        tokenizer: a CLIP tokenizer.
        text_encoder: its text model; the device and dtype are used.

    Returns:
        ``(B, L, D)`` embeddings, L the tokenizer's length (77 for Stable Diffusion).
    """
    tokens = tokenizer(
        prompts,
        padding="max_length",
        max_length=prompt_length(tokenizer, text_encoder),
        truncation=True,
        return_tensors="pt",
    )
    return text_encoder(tokens.input_ids.to(text_encoder.device)).last_hidden_state


def prompt_length(tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel") -> int:
    """Tokens of a prompt with start and end; a tokenizer saved without a length gets the text encoder's."""
    return int(min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings))


@torch.no_grad()
def embed_phrases(
    phrases: Sequence[WeightedText], tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", *, chunks: int = 1
) -> tuple[Tensor, list[int]]:
    """Encode prompts with weighted words, the long ones in chunks, each by itself so that none depends on another.

    A chunk is a prompt of its own with start and end, and a word is not cut between two of them. Each token's
    embedding is multiplied by the weight of its word, then all by one number that brings them back to the mean that
    they had. Where that mean is next to nothing (an encoder whose last norm has no bias) it is their size that is
    brought back. A prompt without weights that fits is embedded as by :func:`embed_prompt`, bit for bit.

    Args:
        phrases: B prompts; an empty one is the unconditional prompt.
        tokenizer: a CLIP tokenizer.
        text_encoder: its text model; the device and dtype are used.
        chunks: how many a prompt may have, ``>= 1``; what does not fit is cut (:func:`dropped_words`).

    Returns:
        ``(B, S, D)`` embeddings and each prompt's own number of tokens, S the largest of them. A shorter one is
        followed by chunks of the empty prompt.

    Source: the prompt weighting of Stable Diffusion's community, as Riffusion has it.
    """
    length = prompt_length(tokenizer, text_encoder)
    embeds = {phrase: _embed_phrase(phrase, tokenizer, text_encoder, length, chunks) for phrase in set(phrases)}
    counts = [len(embeds[phrase]) for phrase in phrases]
    longest = max(counts)
    if min(counts) == longest:
        return torch.stack([embeds[phrase] for phrase in phrases]), counts
    empty = _embed_phrase((), tokenizer, text_encoder, length, 1)
    rows = [
        torch.cat([embeds[phrase], *[empty] * ((longest - count) // length)])
        for phrase, count in zip(phrases, counts, strict=True)
    ]
    return torch.stack(rows), counts


def _embed_phrase(
    phrase: WeightedText, tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel", length: int, chunks: int
) -> Tensor:
    """(c * length, D) of one prompt."""
    text = strip_weights(phrase)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    by_character = [weight for piece, weight in phrase for _ in piece]
    rows, weights = [], []
    for start, stop in _chunks(text, tokens.offset_mapping, length - 2, chunks):
        padding = length - 2 - (stop - start)
        rows.append(
            [
                tokenizer.bos_token_id,
                *tokens.input_ids[start:stop],
                tokenizer.eos_token_id,
                *[tokenizer.pad_token_id] * padding,
            ]
        )
        weights.append([1.0, *[by_character[first] for first, _ in tokens.offset_mapping[start:stop]]])
        weights[-1] += [1.0] * (1 + padding)
    hidden = text_encoder(torch.tensor(rows, device=text_encoder.device)).last_hidden_state
    factors = torch.tensor(weights, device=hidden.device)
    if bool((factors != 1).any()):
        hidden = _weigh(hidden, factors)
    return hidden.flatten(0, 1)


def _weigh(hidden: Tensor, factors: Tensor) -> Tensor:
    """(c, L, D) with each token times its factor (c, L), and as large as before."""
    before = hidden.float()
    after = before * factors[..., None]
    size = before.square().mean().sqrt()
    if min(abs(float(before.mean())), abs(float(after.mean()))) > _MEAN_COUNTS * float(size):
        scale = before.mean() / after.mean()
    else:
        scale = size / after.square().mean().sqrt()
    return (after * scale).to(hidden.dtype)


def _chunks(text: str, offsets: list[tuple[int, int]], room: int, chunks: int) -> list[tuple[int, int]]:
    """First and last token of each chunk of at most ``room`` tokens; a single chunk is cut wherever it is full."""
    if len(offsets) <= room or chunks == 1:
        return [(0, min(len(offsets), room))]
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(offsets) and len(spans) < chunks:
        stop = min(start + room, len(offsets))
        if stop < len(offsets):
            # Back to where a word begins, if it does not fill the chunk alone.
            words = (i for i in range(stop, start, -1) if text[offsets[i][0] - 1].isspace())
            stop = next(words, stop)
        spans.append((start, stop))
        start = stop
    return spans


def dropped_words(prompt: str, tokenizer: "CLIPTokenizer", *, length: int | None = None, chunks: int = 1) -> list[str]:
    """The words of ``prompt`` past the length that is read, which the model never sees.

    Args:
        prompt: the text, without weights.
        tokenizer: a CLIP tokenizer with a ``model_max_length``.
        length: tokens of a chunk with start and end; None is the tokenizer's.
        chunks: how many chunks are read.

    Returns:
        The words in order; a word that is cut in the middle counts as dropped. Empty when all of it fits.
    """
    tokens = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    room = (tokenizer.model_max_length if length is None else length) - 2  # start and end take two
    read = _chunks(prompt, tokens.offset_mapping, room, chunks)[-1][1]
    if len(tokens.input_ids) <= read:
        return []
    first = tokens.offset_mapping[read][0]
    start = max((gap.end() for gap in re.finditer(r"\s+", prompt) if gap.end() <= first), default=0)
    words = (word.strip(",.;:!?") for word in prompt[start:].split())
    return [word for word in words if word]
