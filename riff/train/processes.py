"""What the processes of a run do together: start, agree, gather what is sharded. With one process nearly nothing."""

import datetime
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from riff.train.settings import LoopSettings
from riff.utils.errors import RiffError
from riff.utils.validation import show

# The others wait so long for the main process to render previews or save; ten minutes, NCCL's own, can be too few.
PATIENCE = datetime.timedelta(hours=2)


def choose_precision(device: torch.device) -> str:
    """The ``mixed_precision`` that is quickest on a device and safe there: "bf16", "fp16" or "no"."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # Measured on a CPU with bfloat16 instructions: a step takes 0.6 of the time. Without them it takes longer.
    fast = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast else "no"


def new_accelerator(settings: LoopSettings, logs: str) -> Any:
    """Accelerate's view of this process and its fellows.

    Raises:
        RiffError: fp16 without a GPU, a tracker that accelerate does not know or that is not installed, or sharding of
            the first kind (FSDP1), whose weights are no longer the model's own.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    # The state is shared by all accelerators of a process and would refuse a second run with another precision.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != settings.mixed_precision:
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        cpu=settings.device == "cpu",
        log_with=_trackers(settings.report_to) or None,
        project_dir=logs,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if settings.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise RiffError("mixed_precision is fp16, which needs a GPU; use bf16 or no")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 1:
        raise RiffError("FSDP version 1 is not supported; launch with --fsdp_version 2")
    return accelerator


def _trackers(report_to: str) -> list[str]:
    """Trackers beside TensorBoard, which riff writes itself."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    names = [name.strip() for name in report_to.split(",") if name.strip()]
    for name in names:
        if name not in ("tensorboard", "none") and name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise RiffError(f"report_to is {show(report_to)}; use names of {known}")
    wanted = [name for name in names if name not in ("tensorboard", "none")]
    for name in wanted:
        if name not in [str(each) for each in get_available_trackers()]:
            raise RiffError(f"report_to asks for {name}, which is not installed; pip install it, or leave it out")
    return wanted


def on_main(accelerator: Any, action: Callable[[], Any]) -> None:
    """Do something on the main process alone while the others wait; where it fails, it fails on all alike.

    Raises:
        RiffError: that of ``action``.
    """
    from accelerate.utils import broadcast_object_list

    problem: RiffError | None = None
    if accelerator.is_main_process:
        try:
            action()
        except RiffError as error:
            problem = error
    if accelerator.num_processes > 1:
        [problem] = broadcast_object_list([problem])
    if problem is not None:
        raise problem


def mean_over(accelerator: Any, value: float) -> float:
    """The mean of a number over all processes."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.reduce(torch.tensor(value, device=accelerator.device), reduction="mean"))


def largest_over(accelerator: Any, value: int) -> int:
    """The largest of a whole number over all processes."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())


def same_everywhere(accelerator: Any, value: object) -> bool:
    """Whether all processes hold the same as the main one."""
    if accelerator.num_processes == 1:
        return True
    from accelerate.utils import broadcast_object_list

    [wanted] = broadcast_object_list([value])
    return largest_over(accelerator, int(value != wanted)) == 0


def figures_over(accelerator: Any, figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean of every figure over the micro-batches of all processes that gave it."""
    from accelerate.utils import gather_object

    every = gather_object(figures) if accelerator.num_processes > 1 else figures
    names = sorted({name for each in every for name in each})
    columns = {name: [each[name] for each in every if name in each] for name in names}
    return {name: sum(column) / len(column) for name, column in columns.items()}


def gathered(value: Tensor) -> Tensor:
    """All of a tensor that may be sharded over the processes, which must all call this."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def sharded_like(value: Tensor, reference: Tensor) -> Tensor:
    """``value``, which every process holds whole, on the device of ``reference`` and sharded as that is."""
    placed = value.to(reference.device)
    if not hasattr(reference, "full_tensor") or value.shape != reference.shape:
        return placed
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    return distribute_tensor(placed, reference.device_mesh, reference.placements)
