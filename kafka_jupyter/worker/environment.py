"""What is installed here; and what a child may know of its worker's environment: what Python, the system's libraries and the backends need,
and no secret."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

from kafka_jupyter.runs.choose import normal_packages

_NAMES = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "XDG_CACHE_HOME",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR",
))  # fmt: skip
_PREFIXES = (
    "LC_", "PYTHON", "KERAS_", "TF_", "XLA_", "CUDA_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_", "HSA_",
    "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "VECLIB_", "MALLOC_",
)  # fmt: skip
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|^TF_VAR_")  # TF_VAR_ and TF_TOKEN_ are Terraform's, not TensorFlow's


def packages() -> dict[str, str]:
    """What is installed here: distribution → version."""
    return normal_packages((found.metadata["Name"], found.version) for found in importlib.metadata.distributions())


# Set unless somebody has: TensorFlow's start-up chatter would fill every log, and the first child would take a GPU's whole memory.
_DEFAULTS = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def for_child(environ: Mapping[str, str]) -> dict[str, str]:
    """The allow-list applied, and two defaults."""
    known = {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    return _DEFAULTS | {name: value for name, value in known.items() if not _SECRET.search(name.upper())}
