"""From trained parts to the checkpoint a user loads: half precision, plain diffusers, one spectrogram config."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.diffusion.checkpoint import save_checkpoint
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from training.recipes.denoiser import Denoiser

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def write_checkpoint(
    folder: Path,
    denoiser: Denoiser,
    vae: Any,
    tokenizer: Any,
    scheduler: Any,
    config: SpectrogramConfig,
    prior: dict[str, Tensor],
) -> Path:
    """Write trained parts as one checkpoint folder with float16 weights, in place of an older one.

    Args:
        folder: to write.
        denoiser: UNet and text encoder.
        vae: autoencoder with its scaling factor in its config.
        tokenizer: the text encoder's.
        scheduler: the sampler a user gets by default.
        config: of the pictures.
        prior: ``weight`` and ``bias`` of :class:`riff.prompt.prior.MusicPrior`.
    """
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).to("cpu", torch.float16),
        text_encoder=copy.deepcopy(denoiser.text_encoder).to("cpu", torch.float16),
        tokenizer=tokenizer,
        unet=copy.deepcopy(denoiser.unet).to("cpu", torch.float16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save_checkpoint(pipeline, config, folder, prior=MusicPrior(prior["weight"], prior["bias"]), force=True)


# A CLIP tokenizer with a closed vocabulary: every word it was given is one token, the rest is letters.

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def build_tokenizer(words: list[str], *, model_max_length: int = 77) -> "CLIPTokenizer":
    """A plain ``CLIPTokenizer`` in which every word of ``words`` is exactly one token.

    Byte pair encoding merges the best ranked pair anywhere in a word, so chains that grow from the front of
    different words get in each other's way ("hat" inside "chat"). Here each word grows from its END: every
    merge is (one character, a suffix closed by ``</w>``), a word holds exactly one such suffix at any time,
    hence exactly one merge applies at each step and every listed word is reached whatever the ranks.

    Ids: 512 byte tokens, the suffixes on the way, ``<|startoftext|>``, ``<|endoftext|>``, then the listed
    words in the order given. So a token is a listed word if and only if its id is greater than
    ``eos_token_id``: this is what :func:`riff.prompt.vocabulary.Vocabulary` reads, and it travels with an ordinary
    vocab.json and merges.txt.

    Args:
        words: words and phrases, any case; phrases are split as CLIP splits them ("lo-fi" gives "lo", "-",
            "fi"). Digits and punctuation need not be listed: each is one token already.
        model_max_length: tokens per prompt, including start and end, ``>= 3``.

    Returns:
        The tokenizer; ``len(tokenizer)`` is the ``vocab_size`` for ``CLIPTextConfig``, and its
        ``bos_token_id``, ``eos_token_id`` and ``pad_token_id`` belong there too.

    Source: Sennrich, Haddow & Birch, 2016 (byte pair encoding); the ordering is riff's own.
    """
    from transformers import CLIPTokenizer

    alphabet = _byte_alphabet()
    blank = CLIPTokenizer(vocab=_numbered([*alphabet, START, END]), merges=[])
    listed = _listed_words(words, blank)
    suffixes, merges = _grow_from_the_end(listed)
    whole = {_closed(word) for word in listed}
    letters = [*alphabet, *[letter + WORD_END for letter in alphabet]]
    tokens = [token for token in [*letters, *suffixes] if token not in whole]
    vocab = _numbered([*tokens, START, END, *[_closed(word) for word in listed]])
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=model_max_length, do_lower_case=True)


def _byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level tokenizers, sorted."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _listed_words(words: list[str], blank: "CLIPTokenizer") -> list[str]:
    """The alphabetic pieces of ``words``, normalised as CLIP does, in byte characters, without repeats."""
    backend = blank.backend_tokenizer
    pieces: dict[str, None] = {}
    for word in words:
        text = backend.normalizer.normalize_str(word)
        for piece, (start, end) in backend.pre_tokenizer.pre_tokenize_str(text):
            if text[start:end].isalpha():
                pieces[piece] = None
    return list(pieces)


def _grow_from_the_end(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """All longer-than-a-letter suffixes of ``words``, and the merges that build them, each once."""
    merges: dict[str, tuple[str, str]] = {}
    for word in words:
        suffix = word[-1] + WORD_END
        for letter in reversed(word[:-1]):
            merges.setdefault(letter + suffix, (letter, suffix))
            suffix = letter + suffix
    return list(merges), list(merges.values())


def _closed(word: str) -> str:
    return word + WORD_END


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
