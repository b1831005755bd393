"""Micro-batches: every one of a run has a number, from which alone its random numbers come."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

BatchLoss = Callable[[nn.Module, torch.Generator], tuple[Tensor, dict[str, float]]]


@dataclasses.dataclass(frozen=True)
class NumberedLoss:
    """A loss that is told which micro-batch of the whole run it draws, for data in an order without replacement.

    Attributes:
        batch_loss: called with the model, a generator seeded for this micro-batch, and its number m, counted from 0
            over all steps, processes and accumulated micro-batches; returns the loss and figures to log.
        describe: names what micro-batch m holds, for the message of a run that has to stop.
    """

    batch_loss: Callable[[nn.Module, torch.Generator, int], tuple[Tensor, dict[str, float]]]
    describe: Callable[[int], str] | None = None

    @classmethod
    def of(cls, batch_loss: "BatchLoss | NumberedLoss") -> "NumberedLoss":
        """A loss of either kind as one that is given the number."""
        if isinstance(batch_loss, NumberedLoss):
            return batch_loss
        return cls(lambda model, generator, number: batch_loss(model, generator))


def micro_batch_numbers(step: int, accumulation: int, processes: int) -> list[list[int]]:
    """Numbers of one step's micro-batches, ``[accumulation index][rank]``.

    They are consecutive, so one process that accumulates two micro-batches takes the very ones that two processes
    take at once.
    """
    first = step * accumulation * processes
    return [[first + index * processes + rank for rank in range(processes)] for index in range(accumulation)]


def generator_of(seed: int, number: int) -> torch.Generator:
    """The source of a micro-batch's random numbers, from the run's seed and the micro-batch's number alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
