"""LoRA files on top of a model: read safely, checked, named after their file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.diffusion.components import quiet_libraries
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.files import check_safetensors, first_line

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

LORA_NAME = "pytorch_lora_weights.safetensors"


def find_lora(path: Path) -> tuple[Path | None, Path | None]:
    """The files of a LoRA: its weights, and the words that it teaches, which lie beside them.

    Args:
        path: a file, or a folder that ``riff train`` or diffusers wrote.

    Raises:
        ModelError: there is neither.
    """
    if path.is_dir():
        weights: Path | None = path / LORA_NAME
        words: Path | None = path / EMBEDS_NAME
    elif path.name == EMBEDS_NAME:
        weights, words = None, path
    else:
        weights, words = path, path.with_name(EMBEDS_NAME)
    found = tuple(each if each is not None and each.is_file() else None for each in (weights, words))
    if found == (None, None) or (found[0] is None and weights is not None and not path.is_dir()):
        raise ModelError(
            f"{path} is no LoRA file; give the path of a .safetensors file or of a folder that riff train wrote"
        )
    return found[0], found[1]


def check_lora(path: Path) -> None:
    """Refuse what can be no LoRA with any model.

    Raises:
        ModelError: no such file, or a damaged one.
        SystemProblem: peft is not installed.
    """
    weights, words = find_lora(path)
    for file in (weights, words):
        if file is not None and file.suffix.lower() != ".safetensors":
            raise ModelError(f"{file} is no LoRA file; give the path of a .safetensors file")
        if file is not None:
            check_safetensors(file)
    if weights is None:
        return
    try:
        import peft  # noqa: F401 - diffusers finds it by itself
    except ImportError as error:
        raise SystemProblem("a LoRA needs peft; install it: python -m pip install 'riff-music[lora]'") from error


def load_lora(pipeline: "StableDiffusionPipeline", path: Path) -> str:
    """Load a LoRA (Hu et al., 2021) into UNet and text encoder, and the words that lie beside it.

    Args:
        pipeline: the model.
        path: a ``.safetensors`` file in diffusers' or kohya's layout, or a folder that ``riff train`` wrote.

    Returns:
        The adapter's name; of a folder that only teaches words, a name that no adapter has.

    Raises:
        ModelError: no such file, damaged, not finite, or made for another model.
        SystemProblem: peft is not installed.
    """
    check_lora(path)
    weights, words = find_lora(path)
    name = _free_name(pipeline, path)
    if weights is not None:
        _put_weights(pipeline, weights, name)
    if words is not None:
        for word, vector in read_words(words).items():
            add_token(word, vector, pipeline.tokenizer, pipeline.text_encoder)
    return name


def _free_name(pipeline: "StableDiffusionPipeline", path: Path) -> str:
    taken = {name for names in pipeline.get_list_adapters().values() for name in names}
    name = re.sub(r"\W+", "_", path.stem) or "lora"
    while name in taken:
        name += "_"
    return name


def _put_weights(pipeline: "StableDiffusionPipeline", path: Path, name: str) -> None:
    from safetensors.torch import load_file

    weights = load_file(path)
    if not weights or not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ModelError(f"{path} is empty or holds NaN or infinite weights; restore it")
    try:
        with quiet_libraries():
            pipeline.load_lora_weights(weights, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{path} does not fit this model ({first_line(error)}); use one made for it") from error
    if not any(name in names for names in pipeline.get_list_adapters().values()):
        raise ModelError(f"{path} holds no LoRA for this model's UNet or text encoder; use one made for it")


# WAS riff/trigger.py: Words that a model is taught after the fact: new tokens with embeddings of their own
# (textual inversion).

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
            raise ModelError(f"the word {word!r} is taught already with another embedding; load one of the two LoRAs")
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

    from riff.utils.files import atomic_path

    tensors = {word: vector.detach().float().cpu().contiguous().clone() for word, vector in words.items()}
    with atomic_path(path) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
