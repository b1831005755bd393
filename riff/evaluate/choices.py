"""The embeddings that can be asked for by name, found and loaded."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from riff.errors import ModelError, RiffError

if TYPE_CHECKING:
    from riff.evaluate.embeddings import Embedding
    from riff.evaluate.foreign import Clap

OFFLINE = ("mel", "descriptors", "latents", "tagger")
FOREIGN = ("clap", "encodec")
NAMES = (*OFFLINE, *FOREIGN)


def check_embeddings(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once; those that need no weights of others if there are none.

    Args:
        names: of :data:`NAMES`; ``clap=FOLDER`` and ``encodec=FOLDER`` say where the weights are.

    Raises:
        RiffError: an unknown name; the nearest one is suggested.
    """
    for name in names:
        kind, equals, source = name.partition("=")
        if kind not in NAMES:
            near = difflib.get_close_matches(kind.lower(), NAMES, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ";"
            raise RiffError(f"--embedding {name!r} is not known{hint} known are {', '.join(NAMES)}")
        if equals and (kind not in FOREIGN or not source):
            raise RiffError(f"--embedding {name!r}: only clap=FOLDER and encodec=FOLDER say where weights are")
    return tuple(dict.fromkeys(names)) or OFFLINE


def load_embedding(name: str, checkpoint: str | None, *, download: bool = False) -> Embedding:
    """An embedding that :func:`check_embeddings` has let through.

    Args:
        name: such as ``"mel"`` or ``"clap=FOLDER"``.
        checkpoint: whose latents ``"latents"`` means; None is riff-mini.
        download: whether weights of others may be fetched.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    from riff.evaluate import embeddings

    kind, _, source = name.partition("=")
    if kind == "mel":
        return embeddings.mel_embedding()
    if kind == "descriptors":
        return embeddings.descriptor_embedding()
    if kind == "latents":
        from riff.checkpoint import load_checkpoint

        pipeline, config, _ = load_checkpoint(checkpoint)
        return embeddings.latent_embedding(pipeline.vae, config, checkpoint or "riff-mini")
    if kind == "tagger":
        from riff.tagger import Tagger

        return embeddings.tagger_embedding(Tagger.load())
    if kind == "clap":
        return load_clap(source, download=download).embedding
    from riff.evaluate.foreign import ENCODEC, encodec_embedding

    try:
        return encodec_embedding(source or ENCODEC, download=download)
    except ModelError as error:
        raise _how_to_get("encodec", source or ENCODEC) from error


def load_clap(source: str = "", *, download: bool = False) -> Clap:
    """CLAP, from a folder or from the local cache.

    Raises:
        ModelError: it is not there; the message says how to get it.
    """
    from riff.evaluate.foreign import CLAP, Clap

    try:
        return Clap.load(source or CLAP, download=download)
    except ModelError as error:
        raise _how_to_get("clap", source or CLAP) from error


def _how_to_get(kind: str, source: str) -> ModelError:
    return ModelError(
        f"--embedding {kind}: no usable weights at {source}; add --download once, or download the repository elsewhere "
        f"and give --embedding {kind}=FOLDER"
    )
