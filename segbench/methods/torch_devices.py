"""Sets PyTorch up as a job says: threads, seeds, the device and its memory, and the processes of a training."""

from __future__ import annotations

from typing import Any

from segbench.methods.job import Job


def prepare_torch(job: Job) -> Any:
    """Set threads, seeds and memory limits, join the job's other processes, return this one's ``torch.device``.

    Parameters
    ----------
    job
        A process that has less than a GPU of its own is held to its share of the memory. With
        ``devices.processes`` above 1 the process is one of torchrun's, and takes the GPU of its rank; where there are
        fewer GPUs they share them. They talk as ``backend`` says.
    """
    import torch

    devices = job.devices
    torch.set_num_threads(max(1, devices.num_cpus // devices.processes))
    device = torch.device("cpu")
    if devices.num_gpus > 0 and torch.cuda.is_available():
        device = torch.device("cuda", job.rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)
        share = devices.num_gpus / devices.processes
        if share < 1:
            torch.cuda.set_per_process_memory_fraction(share, device)
    torch.manual_seed(job.seed)
    if devices.processes > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend(devices.processes, torch.cuda.device_count(), device.type))
    return device


def backend(processes: int, gpus: int, device: str) -> str:
    """Return by what the processes of a training talk.

    NCCL refuses two processes on one GPU; gloo copies through the processor's memory, on which it works too.

    Examples
    --------
    >>> backend(2, 2, "cuda"), backend(2, 1, "cuda"), backend(2, 0, "cpu")
    ('nccl', 'gloo', 'gloo')
    """
    return "nccl" if device == "cuda" and gpus >= processes else "gloo"


MOST_WORKERS = 4
"""Processes that read windows for one that trains, where the settings leave it to us."""


def data_workers(job: Job, device: Any) -> int:
    """Return how many processes read windows for this one: as the setting ``workers`` says; ``auto`` is none on a CPU.

    On a GPU ``auto`` is one for each core of this process, up to four.
    """
    wanted = job.settings["workers"]
    if wanted != "auto":
        return int(wanted)
    cores = job.devices.num_cpus // job.devices.processes
    return min(MOST_WORKERS, max(1, cores)) if device.type == "cuda" else 0


def precision_of(job: Job, device: Any) -> str:
    """Return what a job trains in: one of ``card.PRECISIONS``; ``auto`` is float16 on a GPU and float32 else."""
    wanted = str(job.settings["precision"])
    return ("float16" if device.type == "cuda" else "float32") if wanted == "auto" else wanted


def gpu_names(device: Any) -> list[str]:
    """Return the names of the GPUs that a method on ``device`` used: those of all processes where several trained."""
    import torch

    if device.type != "cuda":
        return []
    together = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    first = torch.cuda.current_device() if together == 1 else 0
    used = min(together, torch.cuda.device_count())  # several processes may share one
    return [torch.cuda.get_device_name(n) for n in range(first, first + used)]


def peak_gpu_memory_bytes(device: Any) -> int | None:
    """Return the most memory that this process held on its GPU; None without one."""
    import torch

    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
