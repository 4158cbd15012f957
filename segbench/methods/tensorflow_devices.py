"""Sets TensorFlow up as a job says: threads, seeds, and each GPU's share of memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from segbench.methods.job import Job
from segbench.methods.setting import Setting

_MOST_THREADS = 4
WORKERS = Setting(
    "auto",
    "threads that make batches beside the training, the same ones: auto is one on a CPU, up to 4 on a GPU",
    unit="threads",
    type=int,
    words=("auto",),
    minimum=1,
    neutral_default=True,
)
"""The setting ``workers`` of the methods on TensorFlow; :func:`data_threads` reads it."""


def prepare_tensorflow(job: Job) -> list[Any]:
    """Set threads, seeds and memory limits before anything is computed; returns the GPUs that the job may use.

    Below one GPU, the process is held to that fraction of its memory; else it takes what it needs as it needs it.
    """
    import tensorflow as tf

    threads = job.devices.num_cpus
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(1, threads // 2))
    gpus: list[Any] = tf.config.list_physical_devices("GPU") if job.devices.num_gpus > 0 else []
    for gpu in gpus:
        if job.devices.num_gpus < 1:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=_gpu_megabytes() * job.devices.num_gpus)
            tf.config.set_logical_device_configuration(gpu, [limit])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
    tf.keras.utils.set_random_seed(job.seed % 2**32)
    return gpus


def names_of(gpus: Sequence[Any]) -> list[str]:
    """Return what kind of GPU each is, such as ``Tesla T4``."""
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    return [str(details(gpu).get("device_name", gpu.name)) for gpu in gpus]


def peak_bytes(gpus: Sequence[Any]) -> int | None:
    """Return TensorFlow's own peak on the first GPU; None without one."""
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if gpus else None


def _gpu_megabytes() -> float:
    """Return the memory of the first visible GPU; TensorFlow itself tells it only once it has taken all of it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    query = [
        "nvidia-smi",
        "--query-gpu=memory.total",
        "--format=csv,noheader,nounits",
        *(["-i", visible] if visible else []),
    ]
    return float(subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()[0])


def data_threads(job: Job, gpus: Sequence[Any]) -> int:
    """Return how many threads make batches, by the setting ``workers``."""
    wanted = job.settings["workers"]
    if wanted != "auto":
        return int(wanted)
    return max(1, min(_MOST_THREADS, job.devices.num_cpus)) if gpus else 1
