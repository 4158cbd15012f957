"""What runs ask for against what their methods were measured to hold: told, or raised to what fits. Pure."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from segbench.engine.grid import Run
from segbench.engine.order import CPU
from segbench.engine.order.measured import Profile, Profiles


@dataclass(frozen=True)
class _Shortage:
    """A run asks for less memory than its method was measured to hold."""

    profile: Profile
    need: float
    """Bytes, with the run's batch."""
    on_cpu: bool
    fits: float
    """The share of a GPU, above 1 where none is enough, or the GB of memory on a processor, that would do."""


def memory_notes(run: Run, profiles: Profiles, device: str | None) -> tuple[str, ...]:
    """Return what does not fit: a share of a GPU, or reserved memory, that is less than the method was seen to hold.

    Parameters
    ----------
    run
        The run.
    profiles
        What was measured; other settings than the run's say nothing.
    device
        As ``expected_seconds`` takes it.
    """
    found = _shortage(run, profiles, device)
    if found is None:
        return ()
    profile, batch = found.profile, run.budget.batch_size
    measured = f"was measured to hold {found.need / 1e9:.2g} GB at batch {batch} on {profile.device}"
    if found.on_cpu:
        reserved = run.resources.memory_gb
        return (f"{run.method} {measured}, and reserves {reserved:g} GB: --memory-gb {found.fits:g}",)
    share, whole = run.resources.num_gpus, profile.device_bytes or 0
    ways = [f"--num-gpus {found.fits:g}"] if found.fits <= 1 else []
    smaller = min(batch, profile.batch_for(share * whole))
    if 0 < smaller < batch:
        ways.append(f"--batch-size {smaller}")
    available = f"{share:g} of its {whole / 1e9:.2g} GB"
    return (f"{run.method} {measured}, more than {available}: {' or '.join(ways) or 'no batch fits'}",)


def fitted(run: Run, profiles: Profiles, device: str | None) -> tuple[Run, tuple[str, ...]]:
    """Return a run that asks for as much as its method was measured to hold, and what was raised or cannot be.

    Raised is the share of a GPU, up to a whole one, or the memory on a processor: neither decides a result. The
    batch stays as it is. See ``memory_notes`` for the arguments.
    """
    found = _shortage(run, profiles, device)
    if found is None:
        return run, ()
    if not found.on_cpu and found.fits > 1:
        return run, memory_notes(run, profiles, device)
    asked = run.resources
    told = f"{found.need / 1e9:.2g} GB at batch {run.budget.batch_size} were measured on {found.profile.device}"
    if found.on_cpu:
        raised = dataclasses.replace(asked, memory_gb=found.fits)
        note = f"{run.method} gets {found.fits:g} GB of memory, not {asked.memory_gb:g}: {told}"
    else:
        raised = dataclasses.replace(asked, num_gpus=found.fits)
        note = f"{run.method} gets {found.fits:g} of a GPU, not {asked.num_gpus:g}: {told}"
    return dataclasses.replace(run, resources=raised), (note,)


def _shortage(run: Run, profiles: Profiles, device: str | None) -> _Shortage | None:
    on_cpu = device == CPU or run.resources.num_gpus == 0
    profile = profiles.of(run, CPU if on_cpu else device, same_settings=True)
    if profile is None:
        return None
    need = profile.need(run.budget.batch_size)
    if on_cpu:
        enough = need <= run.resources.memory_gb * 1e9
        return None if enough else _Shortage(profile, need, on_cpu, math.ceil(need / 1e8) / 10)
    share, whole = run.resources.num_gpus, profile.device_bytes
    if whole is None or share > 1 or need <= share * whole:
        return None
    return _Shortage(profile, need, on_cpu, math.ceil(100 * need / whole) / 100)
