"""Tells Ray's metrics, and through them Prometheus, where a launch stands."""

from __future__ import annotations

from collections.abc import Mapping

from segbench.engine.results.statuses import ENDED


class GridMetrics:
    """Four gauges, which Ray's agent of the driver's node exports beside its own: made once Ray is connected."""

    def __init__(self) -> None:
        from ray.util.metrics import Gauge

        self._runs = Gauge("segbench_runs", "Runs of this launch by how their last attempt ended.", ("status",))
        self._waiting = Gauge(
            "segbench_runs_waiting", "Runs that no attempt has been made at, or that are tried again."
        )
        self._running = Gauge("segbench_runs_running", "Attempts that Ray has.")
        self._gpus = Gauge("segbench_gpus", "GPUs of the cluster: in use by runs, and in all.", ("kind",))

    def tell(self, ended: Mapping[str, int], waiting: int, running: int, gpus_in_use: float, gpus: float) -> None:
        """Set every gauge."""
        for status in ENDED:
            self._runs.set(ended.get(status, 0), {"status": status.value})
        self._waiting.set(waiting)
        self._running.set(running)
        self._gpus.set(gpus_in_use, {"kind": "in_use"})
        self._gpus.set(gpus, {"kind": "total"})
