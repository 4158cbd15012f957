"""The GPUs of this machine, as nvidia-smi tells them."""

from __future__ import annotations

import os
import subprocess


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    They are those that ``CUDA_VISIBLE_DEVICES`` names where it is set, else all that nvidia-smi lists.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(n) for n in range(len(_query("index")))]
    devices = [name.strip() for name in named.split(",")]
    # CUDA itself stops at the first that is none
    end = next((n for n, name in enumerate(devices) if name in ("", "-1", "NoDevFiles")), len(devices))
    return devices[:end]


def smallest_gpu_gb() -> float:
    """Return the memory of the smallest GPU of this machine in gigabytes; 0 where nvidia-smi does not tell."""
    try:
        return min((float(told) * 2**20 / 1e9 for told in _query("memory.total")), default=0.0)
    except ValueError:
        return 0.0


def _query(what: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.splitlines() if line.strip()]
