"""What changes the last bits of a run besides its config and the versions of packages, to be stored with it.

The same config, machine, packages and values of these give the same bits. Another number of threads is another config.
"""

import os

import torch

from procpre_interp.model import ModelConfig
from procpre_interp.train import TrainConfig, native

VARIABLES = (
    *("ATEN_", "MKL_", "MKLDNN_", "ONEDNN_", "DNNL_", "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "BLIS_"),
    *("CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_"),
)
"""Beginnings of the names of environment variables that choose how torch and its libraries compute."""


def numerics(train: TrainConfig, model: ModelConfig) -> dict[str, object]:
    """The kernel, and how torch computes here: the instructions of the processor that it uses, its libraries, switches
    and variables; the device, where it is not the CPU; and the name of the native kernel's library, the hash of its
    sources, compiler and flags, where that computes the run.
    """
    found: dict[str, object] = {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "denormals_flushed": bool((torch.tensor([1e-40]) * torch.tensor([1.0])).item() == 0),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }
    if torch.device(train.device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(train.device)
        found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    if train.kernel == "native":
        found["native_library"] = native.library_name(model)
    return {"kernel": train.kernel, "numerics": found}
