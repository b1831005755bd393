"""Compiling the denoiser on request: minutes once, less time at every step of all that follows."""

import shutil
from typing import TYPE_CHECKING

import torch

from riff.errors import SystemProblem

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

COMPILERS = ("c++", "g++", "clang++", "cl")


def compile_denoiser(unet: "UNet2DConditionModel") -> None:
    """Let ``torch.compile`` translate the UNet, in place; weights and names stay as they are.

    Its convolutions get their channels innermost. Each size of picture is translated when it is first drawn, which
    takes up to minutes. The numbers differ from those of the plain model in their last digits.

    Raises:
        SystemProblem: torch cannot compile here, or there is no C++ compiler for the CPU.
    """
    if unet.device.type == "cpu" and not any(shutil.which(name) for name in COMPILERS):
        raise SystemProblem("there is no C++ compiler, which torch.compile needs on a CPU; install g++, or do without")
    unet.to(memory_format=torch.channels_last)
    try:
        unet.compile(dynamic=False)
    except RuntimeError as error:
        raise SystemProblem(f"torch.compile does not work here ({error}); do without") from error
