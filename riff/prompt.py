"""The first rung: words become prompt embeddings, and riff says which words could not."""

import re
import unicodedata
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

# The endings that CLIP's pattern splits off a word before anything else.
_CONTRACTION = re.compile(r"(?<=\w)'(?:s|t|re|ve|m|ll|d)\b", re.IGNORECASE)
# An alphabetic run, as CLIP's pattern finds it (`[^\W\d_]` is Python's spelling of \p{L}), or any one
# character.
_PIECE = re.compile(r"[^\W\d_]+|.", re.DOTALL)
_TYPOGRAPHIC = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212\u266f\u266d", "''\"\"------#b"
)
_GAP = "\0"


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


def dropped_words(prompt: str, tokenizer: "CLIPTokenizer") -> list[str]:
    """The words of ``prompt`` past the tokenizer's length, which the model never sees.

    Args:
        prompt: the text.
        tokenizer: a CLIP tokenizer with a ``model_max_length``.

    Returns:
        The words in order; a word that is cut in the middle counts as dropped. Empty when all of it fits.
    """
    tokens = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    room = tokenizer.model_max_length - 2  # start and end take two
    if len(tokens.input_ids) <= room:
        return []
    first = tokens.offset_mapping[room][0]
    start = max((gap.end() for gap in re.finditer(r"\s+", prompt) if gap.end() <= first), default=0)
    words = (word.strip(",.;:!?") for word in prompt[start:].split())
    return [word for word in words if word]


def split_known(prompt: str, tokenizer: "CLIPTokenizer") -> tuple[str, list[str]]:
    """Part a prompt into what a closed-vocabulary model was taught and the words it never saw.

    A word is known if its token is one of those that :func:`riff.train.tokenizer.build_tokenizer` lists after
    ``<|endoftext|>``. Of a hyphenated word the known parts stay. Digits and ASCII punctuation are always
    known; a contraction's ending ("80's") is left out silently.

    Args:
        prompt: the text.
        tokenizer: a closed-vocabulary tokenizer; for any other, every word is unknown.

    Returns:
        The prompt without the unknown words, and those words in order.
    """
    unknown: list[str] = []
    kept = []
    for piece in _PIECE.findall(_CONTRACTION.sub("", _plain(prompt))):
        known = _is_known(piece, tokenizer) if piece.isalpha() else piece.isascii()
        kept.append(piece if known else _GAP)
        # Joiners, combining marks and control characters are no words: they go without a word.
        if not known and unicodedata.category(piece[0])[0] not in "CMZP":
            unknown.append(piece)
    return _close_gaps("".join(kept)), unknown


def _plain(text: str) -> str:
    """Composed letters, ASCII quotes, dashes and accidentals, single spaces."""
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHIC)
    return re.sub(r"[\s\x00-\x1f]+", " ", text)


def _is_known(word: str, tokenizer: "CLIPTokenizer") -> bool:
    ids = tokenizer(word, add_special_tokens=False).input_ids
    return len(ids) == 1 and ids[0] > tokenizer.eos_token_id


def _close_gaps(text: str) -> str:
    """Remove the marks of dropped words with the hyphens, brackets and commas that belonged to them."""
    text = re.sub(rf"{_GAP}-|-{_GAP}|{_GAP}", " ", text)
    text = re.sub(r"\(\s*\)|\[\s*\]|\"\s*\"", " ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" (?=[,;.:!?])", "", text)
    text = re.sub(r"[,;:][\s,;:]*(?=[,;:.!?])", "", text)
    return text.strip(" ,;:-&+")
