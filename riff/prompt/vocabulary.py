"""The closed vocabulary of riff's own models: which words of a prompt they know, and what the others are taken for."""

import functools
import json
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.prompt.syntax import WeightedText
from riff.utils.errors import ModelError, RiffError
from riff.utils.files import atomic_path, check_safetensors

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

# {"unknown word": "known word"}, made at training time (from WordNet); the package works without it.
NEAREST_WORDS = Path(__file__).parents[1] / "models" / "nearest_words.json"
# The endings that CLIP's pattern splits off a word before anything else.
_CONTRACTION = re.compile(r"(?<=\w)'(?:s|t|re|ve|m|ll|d)\b", re.IGNORECASE)
# An alphabetic run, as CLIP's pattern finds it (`[^\W\d_]` is Python's spelling of \p{L}), or any one character.
_PIECE = re.compile(r"[^\W\d_]+|.", re.DOTALL)
_TYPOGRAPHIC = str.maketrans(
    "\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212\u266f\u266d", "''\"\"------#b"
)
_GAP = "\0"
# What stands between words and may stand at the edge of a piece.
_EDGE = " \t\r\n,;:-&+"


class Vocabulary:
    """What a model with a closed vocabulary makes of words.

    A word is known if its token is one of those that :func:`training.recipes.checkpoint.build_tokenizer` lists after
    ``<|endoftext|>``; for any other tokenizer, every word is unknown. An unknown word is taken as the nearest known one
    if the table has it, else it is left out.

    Attributes:
        tokenizer: of the model.
        nearest: lower-case unknown words and what each is taken as.
    """

    def __init__(self, tokenizer: "CLIPTokenizer", nearest: dict[str, str] | None = None) -> None:
        self.tokenizer = tokenizer
        self.nearest = {} if nearest is None else nearest

    def knows(self, word: str) -> bool:
        """Whether a run of letters is one word of the vocabulary."""
        ids = self.tokenizer(word, add_special_tokens=False).input_ids
        return len(ids) == 1 and ids[0] > self.tokenizer.eos_token_id

    def split(self, text: str) -> tuple[str, list[str], dict[str, str]]:
        """Separate what the model knows of a text from what it does not.

        Of a hyphenated word the known parts stay. Digits and ASCII punctuation are always known; a contraction's ending
        ("80's") is left out silently.

        Returns:
            The text in known words, the words that were left out, in order, and the replaced words with what each was
            taken as.
        """
        unknown: list[str] = []
        replaced: dict[str, str] = {}
        kept = []
        for piece in _PIECE.findall(_CONTRACTION.sub("", _normalize(text))):
            if self.knows(piece) if piece.isalpha() else piece.isascii():
                kept.append(piece)
            elif near := self._nearest(piece):
                replaced[piece] = near
                kept.append(near)
            else:
                kept.append(_GAP)
                # Joiners, combining marks and control characters are no words: they go without a message.
                if unicodedata.category(piece[0])[0] not in "CMZP":
                    unknown.append(piece)
        return _close_gaps("".join(kept)), unknown, replaced

    def split_pieces(self, pieces: WeightedText) -> tuple[WeightedText, list[str], dict[str, str]]:
        """:meth:`split` for words with weights, of each piece by itself."""
        kept: list[tuple[str, float]] = []
        unknown: list[str] = []
        replaced: dict[str, str] = {}
        gap = ""  # what stood between the last known piece and this one
        for text, weight in pieces:
            body = text.strip(_EDGE) if len(pieces) > 1 else text
            start = text.find(body)
            gap += text[:start]
            known, lost, near = self.split(body)
            unknown += lost
            replaced |= near
            if known:
                if kept and (between := _between(gap)):
                    kept.append((between, 1.0))
                kept.append((known, weight))
                gap = ""
            gap += text[start + len(body) :]
        return tuple(kept), unknown, replaced

    def _nearest(self, word: str) -> str | None:
        """What an unknown word is taken as, if the table has it and the model knows all of that."""
        near = self.nearest.get(word.lower())
        return near if near and all(self.knows(each) for each in re.findall(r"[^\W\d_]+", near)) else None


@functools.cache
def read_nearest_words(path: Path = NEAREST_WORDS) -> dict[str, str]:
    """The table of nearest words; empty where there is no such file.

    Raises:
        ModelError: it is not a JSON object of text to text.
    """
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON; install riff again") from error
    if not isinstance(table, dict) or not all(isinstance(near, str) for near in table.values()):
        raise ModelError(f"{path} is not a table of words; install riff again")
    return {word.lower(): near for word, near in table.items()}


def split_known(text: str, tokenizer: "CLIPTokenizer") -> tuple[str, list[str]]:
    """The known words of a text and the unknown ones, without a table of nearest words (:meth:`Vocabulary.split`)."""
    return Vocabulary(tokenizer).split(text)[:2]


def _between(gap: str) -> str:
    """What is left between two pieces of all that stood there."""
    if any(sign in gap for sign in ",;:"):
        return ", "
    return " " if any(sign.isspace() for sign in gap) or len(gap) > 1 else gap


def _normalize(text: str) -> str:
    """Composed letters, ASCII quotes, dashes and accidentals, single spaces."""
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHIC)
    return re.sub(r"[\s\x00-\x1f]+", " ", text)


def _close_gaps(text: str) -> str:
    """Remove the marks of dropped words with the hyphens, brackets and commas that belonged to them."""
    text = re.sub(rf"{_GAP}-|-{_GAP}|{_GAP}", " ", text)
    text = re.sub(r"\(\s*\)|\[\s*\]|\"\s*\"", " ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" (?=[,;.:!?])", "", text)
    text = re.sub(r"[,;:][\s,;:]*(?=[,;:.!?])", "", text)
    return text.strip(" ,;:-&+")


# Words that a model is taught after the fact: new tokens with embeddings of their own (textual inversion).

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

    Its token comes after all others, so a closed vocabulary counts it as known
    (:func:`riff.prompt.vocabulary.Vocabulary`).

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
