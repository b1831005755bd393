"""What others have published about themselves: the scoreboard's figures, each with its source and what it compares to.

Papers marked "quoted" were not read themselves: the number is one that later papers quote from them, and where several
do, they agree.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class MusicCaps:
    """One model on the 5,521 prompts of MusicCaps.

    Attributes:
        model: its name.
        fad: Fréchet audio distance on VGGish, less is better.
        kl: Kullback-Leibler divergence of an audio tagger's labels, less is better.
        clap: CLAP score, more is better; checkpoints differ from paper to paper.
        source: where the numbers stand.
        comparable: to what, and why or why not, in one sentence.
    """

    model: str
    fad: float | None
    kl: float | None
    clap: float | None
    source: str
    comparable: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """A published figure of another kind.

    Attributes:
        model: its name.
        claim: the figure, in words.
        source: where it stands.
        comparable: to what, and why or why not, in one sentence.
    """

    model: str
    claim: str
    source: str
    comparable: str


_MUSICGEN = "arXiv:2306.05284 Table 1 (quoted)"
_SAME_TABLE = "Comparable to the other rows of that table only: one VGGish, one CLAP checkpoint, 10 s clips."
_RELEASED = "Comparable to that table in metric, but of the released weights, which are not the paper's."
_OWN_CLAP = "FAD is comparable in kind; the CLAP score is of another checkpoint than MusicGen's table, so it is not."
_CARD = "Comparable to MusicGen's released weights: the same group and metrics."
_CLOSED = (
    "Comparable with care: the weights are closed, so that nobody else could measure it on the same copy of the clips."
)

MUSIC_CAPS = (
    MusicCaps("Riffusion v1", 14.8, 2.06, 0.19, _MUSICGEN, _SAME_TABLE),
    MusicCaps("Riffusion v1, measured again", 13.31, 2.10, 0.19, "FlashAudio Table 4 (quoted)",
              "The same weights in other hands: the difference to 14.8 is what a protocol alone does."),
    MusicCaps("Moûsai", 7.5, 1.59, 0.23, _MUSICGEN, _SAME_TABLE),
    MusicCaps("MeLoDy", 5.41, None, None, "arXiv:2308.05734 Table III (quoted)", _CLOSED),
    MusicCaps("MusicLDM", 5.20, 1.47, 0.40, "FlashAudio Table 4 (quoted)", _OWN_CLAP),
    MusicCaps("MusicLM", 4.0, None, None, _MUSICGEN, _CLOSED),
    MusicCaps("Noise2Music", 2.1, None, None, _MUSICGEN, _CLOSED),
    MusicCaps("MusicGen 3.3B, paper", 3.8, 1.22, 0.31, _MUSICGEN, _SAME_TABLE),
    MusicCaps("MusicGen small, released", 4.88, 1.42, 0.27, "MUSICGEN_MODEL_CARD.md", _RELEASED),
    MusicCaps("MusicGen large, released", 5.48, 1.37, 0.28, "MUSICGEN_MODEL_CARD.md", _RELEASED),
    MusicCaps("MAGNeT small, 10 s", 4.22, 1.11, 0.28, "MAGNET_MODEL_CARD.md", _CARD),
    MusicCaps("JASCO 400M, chords, drums, melody given", 4.73, None, 0.317, "JASCO_MODEL_CARD.md",
              "Not comparable to text alone: it is told the chords, drums and melody of the reference."),
    MusicCaps("AudioLDM-M", 3.20, 1.29, 0.360, "arXiv:2308.05734 Table III (quoted)", _OWN_CLAP),
    MusicCaps("AudioLDM2-Full", 3.13, 1.20, 0.301, "arXiv:2308.05734 Table III (quoted)", _OWN_CLAP),
    MusicCaps("CALM, 4 steps", 2.14, 1.30, 0.44, "CALM Table 11 (quoted)", _OWN_CLAP),
    MusicCaps("FlashAudio, 1 step", 3.48, 1.22, 0.42, "FlashAudio Table 4 (quoted)", _OWN_CLAP),
)  # fmt: skip

CONTROL = (
    Claim("Stable Audio 3", "asked tempo hit in 61 %, exact key in 64 %; ACE-Step beside it at chance",
          "lab.cloud, 2026-06-25 (quoted)",
          "Comparable in what is asked (a tempo, a key), not in difficulty: it knows the music of the world, "
          "riff-mini 30 genres that riff composed, and its tempo is exact by the grid."),
    Claim("JASCO 400M", "chord overlap 0.69, onset F1 0.38, melody cosine 0.42", "JASCO_MODEL_CARD.md",
          "Not comparable: it is given chords and drums as signals, riff-mini only words."),
    Claim("Mustango against Tango", "experts rate the match of chords 6.06 against 2.75 of 7", "Mustango README",
          "Not comparable: people were asked, and nobody has been asked about riff."),
)  # fmt: skip

SPEED = (
    Claim("Riffusion v1", "50 steps within 5 s for 5.12 s of music, on an RTX 3090 or A10G", "Riffusion README",
          "Comparable in task and length, not in machine: a GPU and a model of 860 M parameters; riff-mini has 16 M."),
    Claim("Stable Audio 3 small", "120 s in 5.92 s on a Mac's processor (20 times real time)", "its README",
          "Comparable in kind (a processor, no GPU), but another processor with more cores."),
    Claim("SDXS-512 in OpenVINO (a picture, no sound)", "0.82 s a picture on an i7-12700, about 6 times real time",
          "FastSD CPU README", "Not comparable: 12 cores, and the way from picture to sound is not in it."),
    Claim("ACE-Step v1, 27 steps", "12.8 times real time on an RTX 3090, 2.27 times on an M2 Max", "its README",
          "Not comparable: GPUs, and whole songs with voices."),
    Claim("StreamDiffusion, 4 steps (a picture, no sound)", "38 pictures a second on an RTX 4090", "its README",
          "Not comparable: a GPU, and the way from picture to sound is not in it."),
)  # fmt: skip
