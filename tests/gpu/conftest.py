"""The device of the suite that needs a GPU: `pytest -m gpu -n 0 -s tests/gpu`.

It needs no installation, and no openvino, av, h5py, tifffile or onnx. QSCI_GPU_TESTS=cpu runs the same, smaller, on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from gpu_size import SMALL


@pytest.fixture(scope="session")
def device() -> str:
    """What torch calls the device to test on."""
    if SMALL:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip(
            f"torch {torch.__version__} finds no GPU here; QSCI_GPU_TESTS=cpu runs the same, smaller, on the CPU"
        )
    return "cuda:0"
