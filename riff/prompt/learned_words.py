"""Words that a model is taught after the fact: new tokens with embeddings of their own (textual inversion)."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.utils.errors import ModelError, RiffError
from riff.utils.files import atomic_path, check_safetensors

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

EMBEDS_NAME = "learned_embeds.safetensors"
MOST_LETTERS = 40


def check_word(word: str) -> str:
    """A word that can be taught, in lower case as the tokenizer reads it.

    Raises:
        RiffError: it is empty, long, or more than one run of letters, as prompts are read.
    """
    folded = word.strip().lower()
    if not re.fullmatch(r"[^\W\d_]+", folded) or not 2 <= len(folded) <= MOST_LETTERS:
        raise RiffError(
            f"the trigger word is {word!r}; use one made-up word of 2 to {MOST_LETTERS} letters "
            "without spaces, digits and signs, such as 'sarondeng'"
        )
    return folded


def is_one_token(word: str, tokenizer: "CLIPTokenizer") -> bool:
    """Whether the tokenizer has the whole word."""
    return len(tokenizer(word, add_special_tokens=False).input_ids) == 1


def add_token(word: str, vector: Tensor, tokenizer: "CLIPTokenizer", text_encoder: "CLIPTextModel") -> int:
    """Teach tokenizer and text encoder a word; what they knew stays as it was.

    Its token comes after all others, so a closed vocabulary counts it as known (:func:`riff.prompt.vocabulary.Vocabulary`).

    Args:
        word: as :func:`check_word` returns it.
        vector: (D,) its embedding.
        tokenizer: of the model, changed in place.
        text_encoder: of the model, changed in place.

    Returns:
        The id of its token.

    Raises:
        ModelError: the vector is not of this model's size, not finite, or the word is taught with another one.
    """
    from tokenizers import AddedToken

    size = int(text_encoder.config.hidden_size)
    if vector.shape != (size,) or not bool(torch.isfinite(vector).all()):
        raise ModelError(
            f"the embedding of {word!r} has shape {tuple(vector.shape)}; this model's are ({size},) and finite"
        )
    if word in tokenizer.get_added_vocab():
        number = int(tokenizer.convert_tokens_to_ids(word))
        known = text_encoder.get_input_embeddings().weight[number]
        if not torch.allclose(known.float().cpu(), vector.float().cpu(), atol=1e-3):
            raise ModelError(f"the word {word!r} has another embedding already; load one of the two LoRAs")
        return number
    # A whole word only, matched after lower-casing, as the words of the vocabulary are.
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True)])
    number = int(tokenizer.convert_tokens_to_ids(word))
    if number >= text_encoder.get_input_embeddings().weight.shape[0]:
        text_encoder.resize_token_embeddings(number + 1, mean_resizing=False)
    embeddings = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[number] = vector.to(embeddings)
    return number


def read_words(path: Path) -> dict[str, Tensor]:
    """The words of a file in diffusers' layout, ``{token: (D,) embedding}``.

    Raises:
        ModelError: it is damaged or holds anything else.
    """
    check_safetensors(path)
    from safetensors.torch import load_file

    words = {}
    for word, vector in load_file(path).items():
        try:
            folded = check_word(word)
        except RiffError as error:
            raise ModelError(f"{path}: {error}") from error
        words[folded] = vector.float().reshape(-1) if vector.dim() == 1 or len(vector) == 1 else vector
    return words


def write_words(path: Path, words: dict[str, Tensor]) -> None:
    """Write words so that diffusers' ``load_textual_inversion`` reads them; the inverse of :func:`read_words`."""
    from safetensors.torch import save_file

    tensors = {word: vector.detach().float().cpu().contiguous().clone() for word, vector in words.items()}
    with atomic_path(path) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
