"""A store that another process holds from before a launch stops nothing: the launch says so and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.scheduler import Event, Finished, GridRequest, LaunchOptions, Note, launch, launching
from segbench.engine.scheduler.ray_session import keep_token

HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_launch_goes_on_while_a_client_holds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(DatasetSpec("inline", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01}))
    out = ResultsFolder(tmp_path / "results")

    def run(seeds: list[int], notes: list[str], client: subprocess.Popen[str] | None = None) -> list[str]:
        def observe(event: Event) -> None:
            if isinstance(event, Note):
                notes.append(event.text)
            if isinstance(event, Finished) and client is not None:
                client.kill()
                client.wait()

        grid = {"methods": ["threshold"], "tasks": ["inline-wholecell"], "tissues": ["BV2"], "seeds": seeds}
        (tmp_path / "grid.yaml").write_text(json.dumps(grid))
        options = LaunchOptions(executor="inline", cpu=True)
        _, summary = launch(GridRequest(grid_file=tmp_path / "grid.yaml"), out, options, observe)
        return [] if summary is None else [outcome.status.value for outcome in summary.outcomes]

    assert run([0], []) == ["done"]
    monkeypatch.setattr(launching, "_PATIENCE_S", 0.2)
    client = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out.store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "held\n"
    notes: list[str] = []
    assert run([0, 1], notes, client) == ["done"], "what is finished is known from the records"
    assert any(f"process {client.pid}) holds {out.store}: the launch goes on" in note for note in notes)
    assert query(out, "select count(*) from attempts where status = 'done'").item() == 2


def test_rays_token_is_read_by_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    keep_token()
    assert token.stat().st_mode & 0o777 == 0o600
