"""Errors as every door reads them."""

import pytest
import torch

from riff.utils.errors import RiffError, is_out_of_memory


def test_a_tensor_too_large_for_the_machine_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (RiffError("out of memory"), False),
    ],
)
def test_only_full_memory_is_out_of_memory(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) is full
