"""The connection to Ray: a local one that is started for the launch, or a cluster that runs already."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from segbench.engine.order import device_of
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Host, hosts_of
from segbench.errors import SegbenchError

_STARTS = 4


class Session:
    """A connection to Ray.

    Parameters
    ----------
    start
        Connects, or starts a local Ray, and returns the URL of its dashboard; None where somebody else did that.
    """

    def __init__(self, start: Callable[[], str | None] | None = None) -> None:
        self._start = start
        self.dashboard: str | None = None
        """URL of Ray's dashboard; None where there is none."""
        self._raylet: psutil.Process | None = None
        self._begin()

    def _begin(self) -> None:
        before = _raylets()
        dashboard = None if self._start is None else self._start()
        self.dashboard = f"http://{dashboard}" if dashboard else None
        self._raylet = next(iter(_raylets() - before), None)

    def died(self) -> bool:
        """Return whether the raylet of a local Ray that was started here is gone: nothing is run any more then."""
        if self._raylet is None:
            return False
        try:
            return self._raylet.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def start_again(self) -> None:
        """Start the local Ray anew; raises SegbenchError where that cannot be."""
        import ray

        before = set(psutil.Process().children(recursive=True))
        for left in reversed(range(_STARTS)):
            ray.shutdown()
            try:
                self._begin()
                return
            except SegbenchError:  # Ray waits for half a minute, which a busy machine needs more of
                if not left:
                    raise
                for process in set(psutil.Process().children(recursive=True)) - before:
                    with contextlib.suppress(psutil.Error):
                        process.kill()


def _raylets() -> set[psutil.Process]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name() == "raylet":
                found.add(child)
    return found


def set_ray_environment(options: LaunchOptions) -> None:
    """Set the variables that Ray reads when it is imported and started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray listens on every interface: whoever else is on the network must not be able to run code here. It reads this
    # when it is imported, so that a process that has imported it keeps what it has.
    if options.address is None and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def connected(options: LaunchOptions) -> Iterator[Session]:
    """Be connected to the Ray that the options name, starting a local one where they name none.

    Raises
    ------
    SegbenchError
        It cannot be reached or started.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if not (options.address or "").startswith("ray://"):  # a client's workers get no folder of the client
        quiet["job_config"] = _job_config()

    def start() -> str | None:
        try:
            if options.address:
                return str(ray.init(address=options.address, **quiet).dashboard_url or "") or None
            gpus = {"num_gpus": 0} if options.cpu else {}
            # nothing but small requests goes through Ray's object store
            ray.init(
                address="local", num_cpus=options.num_cpus, include_dashboard=False,
                object_store_memory=128 * 2**20, **gpus, **quiet,
            )  # fmt: skip
        except Exception as error:  # Ray raises Exception itself where a node does not start in time
            where = f"reach Ray at {options.address}" if options.address else "start a local Ray"
            raise SegbenchError(f"cannot {where}: {str(error).splitlines()[0] if str(error) else error!r}") from None
        return None

    began = not ray.is_initialized()
    session = Session(start if began else None)
    keep_token()
    try:
        yield session
    finally:
        if began:
            ray.shutdown()


def keep_token() -> None:
    """Let the file with Ray's token be read by its owner alone: whoever has it can run code on the cluster."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def connected_cluster(address: str) -> tuple[list[Host], str]:
    """Return the living nodes of a running Ray cluster and the kind of its GPUs, as ``device_of`` gives it.

    Raises
    ------
    SegbenchError
        Ray cannot be reached there.
    """
    import ray

    with connected(LaunchOptions(address=address)):
        found = ray.nodes()
    return hosts_of(found), device_of(found)


def _job_config() -> Any:
    """Return a job whose workers look for modules where this process does.

    Ray puts the driver's working folder first on every worker's path. A folder or module in there that is named like
    one of ours, or like one of a library, would be imported instead: ``segbench``, beside a checkout. Where this
    process looks there itself, so do the workers.
    """
    from ray.job_config import JobConfig

    class Job(JobConfig):  # type: ignore[misc]
        _py_driver_sys_path: list[str]

        def _serialize(self) -> Any:
            here = {str(Path(entry).resolve()) for entry in sys.path}
            self._py_driver_sys_path = [p for p in self._py_driver_sys_path if str(Path(p).resolve()) in here]
            return super()._serialize()

    return Job()
