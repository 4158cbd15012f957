"""The builder of environments, with a distribution made here, so that no registry is asked."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import importlib.util
import json
import netrc
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from segbench.engine.grid.cards import all_cards
from segbench.engine.run import environments, guarded, lock_files, package_index
from segbench.errors import SegbenchError

UV = environments._find_uv()
NAME = "segbench-tiny"


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache, a folder of locks with ``tiny-cpu``, and a folder of wheels that pip is told of."""
    wheels, locks = tmp_path / "wheels", tmp_path / "locks"
    wheels.mkdir()
    locks.mkdir()
    write_wheel(wheels, "1.0")
    (locks / "tiny-cpu.txt").write_text(f"{NAME}==1.0\n")
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setattr(lock_files, "LOCKS", locks)
    return locks


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Build with pip, and with uv where this machine has it."""
    if request.param == "uv" and UV is None:
        pytest.skip("uv is not on the PATH")
    monkeypatch.setattr(environments, "_find_uv", lambda: UV if request.param == "uv" else None)
    return str(request.param)


def write_wheel(folder: Path, version: str, name: str = NAME, tag: str = "py3-none-any") -> Path:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", f"{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def ask(environment: environments.Environment, code: str) -> subprocess.CompletedProcess[str]:
    env = environments.subprocess_env(environment)
    return subprocess.run([environment.python, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_an_environment_is_built_once_and_found_again(installer: str) -> None:
    assert environments.find("tiny", gpu=False) is None
    said: list[str] = []
    built = environments.ensure("tiny", gpu=False, progress=said.append)
    assert said[0].startswith(f"tiny-cpu: installing 1 packages with {installer}")
    assert said[-1].startswith("tiny-cpu: ready after")
    assert ask(built, "import segbench_tiny; print(segbench_tiny.VERSION)").stdout == "1.0\n"
    site = next((built.python.parent.parent / "lib").glob("python*/site-packages"))
    assert list((site / "__pycache__").glob("segbench_tiny*.pyc"))
    assert (built.versions, built.variant) == ({NAME: "1.0"}, "cpu")

    said.clear()
    assert environments.ensure("tiny", gpu=False, progress=said.append) == built == environments.find("tiny", gpu=False)
    assert said == []


def test_another_lock_is_another_environment(own_locks: Path, tmp_path: Path) -> None:
    first = environments.ensure("tiny", gpu=False)
    write_wheel(tmp_path / "wheels", "2.0")
    (own_locks / "tiny-cpu.txt").write_text(f"# a comment\n{NAME}==2.0\n")
    second = environments.ensure("tiny", gpu=False)
    assert first.lock_hash != second.lock_hash
    assert first.python.exists()
    assert second.versions == {NAME: "2.0"}


def test_a_build_that_died_is_removed_and_done_again() -> None:
    folder, _ = environments._describe("tiny", "cpu")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half a build")
    assert environments.find("tiny", gpu=False) is None
    said: list[str] = []
    built = environments.ensure("tiny", gpu=False, progress=said.append)
    assert said[0] == "tiny-cpu: removing a build that did not finish"
    assert ask(built, "import segbench_tiny").returncode == 0


@pytest.mark.slow
def test_a_failed_build_tells_the_installers_last_lines_and_leaves_nothing(own_locks: Path, installer: str) -> None:
    (own_locks / "tiny-cpu.txt").write_text(f"{NAME}==9.9\n")
    with pytest.raises(SegbenchError) as error:
        environments.ensure("tiny", gpu=False)
    message = str(error.value)
    assert message.count("\n") == 0
    assert "could not build the environment tiny-cpu" in message
    assert f"{NAME}==9.9" in message
    assert ("No matching distribution" if installer == "pip" else "unsatisfiable") in message
    folder, _ = environments._describe("tiny", "cpu")
    assert not folder.exists()
    assert environments.find("tiny", gpu=False) is None


def test_a_full_or_unwritable_cache_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(SegbenchError, match="cannot build the environment tiny-cpu under"):
        environments.ensure("tiny", gpu=False)


def test_two_processes_that_need_it_at_once_build_it_once(own_locks: Path) -> None:
    code = (
        "import sys, pathlib; from segbench.engine.run import environments as e, lock_files;"
        "lock_files.LOCKS = pathlib.Path(sys.argv[1]);"
        "print(e.ensure('tiny', gpu=False, progress=lambda line: print(line, flush=True)).python)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(own_locks)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("installing 1 packages") for output in outputs) == 1
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]


def test_a_method_sees_segbench_and_nothing_else_of_the_engines() -> None:
    built = environments.ensure("tiny", gpu=False)
    assert ask(built, "import segbench.methods.card").returncode == 0
    for engines in ("duckdb", "numpy", "typer"):
        assert "ModuleNotFoundError" in ask(built, f"import {engines}").stderr
    path = json.loads(ask(built, "import sys, json; print(json.dumps(sys.path))").stdout)
    assert sum("site-packages" in entry for entry in path) == 1
    assert any(entry.startswith(str(built.python.parent.parent)) for entry in path)
    shim = Path(environments.subprocess_env(built)["PYTHONPATH"])
    assert [entry.name for entry in shim.iterdir()] == ["segbench"]


def test_what_a_method_imports_is_compiled_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_library.py").touch()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    variables = environments.subprocess_env(environments.ensure("engine", gpu=False))
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import slow_library"
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)
    assert list((tmp_path / "__pycache__").glob("slow_library*.pyc"))


def test_a_third_partys_module_is_linked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_file_method.py").write_text("HERE = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    built = environments.ensure("tiny", gpu=False)
    env = environments.subprocess_env(built, ("segbench", "one_file_method"))
    done = subprocess.run([built.python, "-c", "import one_file_method, segbench"], env=env, check=False)
    assert done.returncode == 0
    with pytest.raises(SegbenchError, match="module 'no_such_module' is not installed"):
        environments.subprocess_env(built, ("no_such_module",))


@pytest.mark.slow
def test_where_no_processor_build_is_to_be_had_the_gpu_build_serves(own_locks: Path, installer: str) -> None:  # noqa: ARG001
    (own_locks / "tiny-cpu.txt").write_text(f"{NAME}==1.0+cpu\n")
    (own_locks / "tiny-gpu.txt").write_text(f"{NAME}==1.0\n")
    said: list[str] = []
    built = environments.ensure("tiny", gpu=False, progress=said.append)
    assert built.variant == "gpu"
    assert any(f"your package index has no {NAME}==1.0+cpu" in line for line in said)
    assert environments.find("tiny", gpu=False) == built


@pytest.mark.slow
def test_one_lock_can_serve_processors_and_gpus(own_locks: Path, installer: str) -> None:  # noqa: ARG001
    (own_locks / "both.txt").write_text(f"{NAME}==1.0\n")
    assert "both" in lock_files.environment_names()
    built = environments.ensure("both", gpu=True)
    assert built.variant == "any"
    assert environments.find("both", gpu=False) == built
    assert environments.lock_versions("both", "gpu") == environments.lock_versions("both") == {NAME: "1.0"}


@pytest.mark.slow
def test_wheels_for_another_python_get_a_folder_of_their_own(
    own_locks: Path,
    installer: str,  # noqa: ARG001
    tmp_path: Path,
) -> None:
    wheel = write_wheel(tmp_path / "wheels", "3.0", "segbench-foreign", "cp310-none-any")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (own_locks / "tiny.cp310.txt").write_text(f"segbench-foreign==3.0 --hash=sha256:{digest}\n")
    built = environments.ensure("tiny", gpu=False)
    assert built.versions == {NAME: "1.0", "segbench-foreign": "3.0"}
    code = "import segbench_foreign as f, importlib.metadata as m; print(f.VERSION, m.version('segbench-foreign'))"
    done = subprocess.run([built.python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3.0", "3.0"]


def test_an_interpreter_that_the_user_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = environments.ensure("tiny", gpu=False)
    monkeypatch.setenv("SEGBENCH_ENV_TINY", str(built.python))
    named = environments.ensure("tiny", gpu=True)
    assert (named.python, named.variant, named.versions[NAME]) == (built.python, "gpu", "1.0")
    assert environments.lock_versions("tiny")[NAME] == "1.0"

    monkeypatch.delenv("SEGBENCH_ENV_TINY")
    config = tmp_path / "cache" / "environments.yaml"
    config.write_text(f"other: {built.python}\n")
    assert environments.ensure("other", gpu=False).python == built.python
    config.write_text("other: /no/such/python\n")
    with pytest.raises(SegbenchError, match=r"environments\.yaml, entry 'other' names /no/such/python"):
        environments.ensure("other", gpu=False)


def test_unknown_environments_are_answered_with_the_known() -> None:
    with pytest.raises(SegbenchError, match="unknown environment 'tny'; did you mean tiny"):
        environments.ensure("tny", gpu=False)
    with pytest.raises(SegbenchError, match="environment 'tiny' has no gpu variant"):
        environments.ensure("tiny", gpu=True)


def test_the_engines_own_environment_is_its_interpreter() -> None:
    engine = environments.ensure("engine", gpu=False)
    assert engine.python == Path(sys.executable)
    assert engine.versions["numpy"] == environments.lock_versions("engine")["numpy"]


@pytest.mark.parametrize(
    "name",
    ["tensorflow-cpu", "tensorflow-gpu", "cellpose-cpu", "cellpose-gpu", "instanseg-cpu", "instanseg-gpu", "torch"],
)
def test_the_packaged_locks_are_fully_pinned_and_hold_the_methods_libraries(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    lines = [pin for _, pin in lock_files.pins((lock_files.LOCKS / f"{name}.txt").read_text())]
    assert all(line.count("==") == 1 and ";" not in line for line in lines)
    assert [line for line in lines if "--hash=sha256:" not in line] == [
        line for line in lines if "+" in line.partition(" ")[0]
    ], "what is on no index alone has no hash"
    environment, _, variant = name.partition("-")
    versions = environments.lock_versions(environment, variant or "cpu")
    cards = [c for c in all_cards().values() if c.environment == environment]
    assert cards
    assert all(library in versions for card in cards for library in card.libraries)
    other = environments.lock_versions(environment, "gpu" if variant == "cpu" else "cpu")
    for card in cards:
        for library in card.libraries:
            assert versions[library].split("+")[0] == other[library].split("+")[0], "a run is the same run on a GPU"


def test_uv_is_told_what_pip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    options = list(package_index.uv_options(package_index.pip_settings(environments.SAFE_PATH)))
    assert {"--find-links=/one", "--find-links=/two", "--index-url=https://mirror/simple"} <= set(options)


Add = Callable[..., Path]


@pytest.mark.slow
def test_a_distribution_brings_an_environment_of_its_own(add_distribution: Add, installer: str, tmp_path: Path) -> None:
    lock = "acme_net/locks/acme.txt"
    files = {"acme_net/__init__.py": "raise RuntimeError('not to be imported')\n", lock: f"{NAME}==1.0\n"}
    folder = add_distribution("acme-net", files, environments="acme = acme_net:locks")
    assert "acme" in lock_files.environment_names()
    assert environments.lock_versions("acme") == {NAME: "1.0"}
    said: list[str] = []
    first = environments.ensure("acme", gpu=True, progress=said.append)
    assert said[0].startswith(f"acme-any: installing 1 packages with {installer}")
    assert first.python.parents[1].name.startswith(f"acme-any-{first.lock_hash}-cp3")
    assert environments.find("acme", gpu=False) == first
    assert ask(first, "import segbench_tiny; print(segbench_tiny.VERSION)").stdout == "1.0\n"

    write_wheel(tmp_path / "wheels", "2.0")
    (folder / lock).write_text(f"{NAME}==2.0\n")
    second = environments.ensure("acme", gpu=False)
    assert (second.versions, second.lock_hash != first.lock_hash) == ({NAME: "2.0"}, True)
    assert first.python.exists()


@pytest.mark.parametrize(
    ("files", "declared", "said"),
    [
        ({}, "acme_net:locks", "environment 'acme' of distribution acme: acme_net:locks names no installed package"),
        ({"acme_net/__init__.py": ""}, "acme_net:locks", "environment 'acme' of distribution acme has no lock"),
        ({"acme_net/l/acme-cpu.txt": f"{NAME}>=1\n"}, "acme_net:l", "line 1: found 'segbench-tiny>=1'; a lock's lines"),
        ({"acme_net/l/acme-gpu.txt": f"{NAME}==1.0\n"}, "acme_net:l", ""),
    ],
)
def test_locks_that_do_not_hold_are_told(
    add_distribution: Add, files: dict[str, str], declared: str, said: str
) -> None:
    add_distribution("acme", files, environments=f"acme = {declared}")
    if said:
        with pytest.raises(SegbenchError, match=re.escape(said)):
            environments.lock_versions("acme")
        assert "acme" in str(environments.problem_of("acme"))
    else:
        assert environments.lock_versions("acme") == {NAME: "1.0"}, "the other build's, where there is one lock"
    assert environments.lock_versions("tiny") == {NAME: "1.0"}


def test_an_environments_name_belongs_to_one_distribution(add_distribution: Add) -> None:
    add_distribution("acme", {"acme_net/l/both.txt": f"{NAME}==1.0\n"}, environments="both = acme_net:l")
    add_distribution("umbrella", {"umbrella_net/l/both.txt": f"{NAME}==1.0\n"}, environments="both = umbrella_net:l")
    with pytest.raises(SegbenchError, match=r"more than one distribution brings an environment 'both': .*uninstall"):
        environments.ensure("both", gpu=False)


@pytest.mark.slow
def test_a_folder_of_the_users_hides_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "segbench").mkdir(parents=True)
    for name in ("segbench/__init__.py", "json.py", "pip.py", "venv.py", "compileall.py", "segbench_tiny.py"):
        (here / name).write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(environments, "_find_uv", lambda: None)
    built = environments.ensure("tiny", gpu=False)
    assert environments._installed_in(built.python)[NAME] == "1.0"
    done = ask(built, "import segbench_tiny, segbench.methods.card")
    assert done.returncode == 0, done.stderr


def test_an_interpreter_without_distutils_and_setuptools_is_refused_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # this interpreter, as one of Python 3.12 and later is where nobody has installed setuptools
    modules = tmp_path / "modules"
    (modules / "mmengine-0.10.7.dist-info").mkdir(parents=True)
    (modules / "mmengine-0.10.7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mmengine\n")
    (modules / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name in ('distutils', 'setuptools') else find(name, *more)\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={modules} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("SEGBENCH_ENV_TINY", str(python))
    for ask in (environments.ensure, environments.find):
        with pytest.raises(SegbenchError, match=r"mmengine needs distutils, which .*python does not have .*setuptools"):
            ask("tiny", gpu=False)
    assert "distutils" in str(environments.problem_of("tiny"))

    (modules / "sitecustomize.py").unlink()
    monkeypatch.setenv("SEGBENCH_ENV_TINY", str(shutil.copy2(python, tmp_path / "another")))
    if any(map(importlib.util.find_spec, ("distutils", "setuptools"))):
        assert environments.problem_of("tiny") is None


@pytest.mark.slow
def test_a_file_that_is_not_what_the_lock_hashed_is_not_installed(own_locks: Path, installer: str) -> None:  # noqa: ARG001
    wheel = own_locks.parent / "wheels" / "segbench_tiny-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (own_locks / "tiny-cpu.txt").write_text(f"# pinned\n{NAME}==1.0 \\\n    --hash=sha256:{digest}\n")
    good = environments.ensure("tiny", gpu=False)
    assert good.versions == {NAME: "1.0"}
    shutil.rmtree(good.python.parents[1])
    (own_locks / "tiny-cpu.txt").write_text(f"{NAME}==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SegbenchError, match=r"(?i)hash") as caught:
        environments.ensure("tiny", gpu=False)
    assert "\n" not in str(caught.value)


class Locked(http.server.SimpleHTTPRequestHandler):
    """An index that asks for a name and a password."""

    def do_GET(self) -> None:
        """Serve those who log in."""
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"some.one:s3cr3t%word").decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.slow
def test_the_password_of_an_index_is_on_no_command_line_and_in_nothing_that_is_told(
    own_locks: Path,
    installer: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simple = own_locks.parent / "index" / "simple" / NAME
    simple.mkdir(parents=True)
    wheel = write_wheel(simple, "1.0")
    (simple / "index.html").write_text(
        f'<!DOCTYPE html><html><body><a href="{wheel.name}">{wheel.name}</a></body></html>'
    )
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Locked, directory=str(own_locks.parent / "index"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("UV_CACHE_DIR", str(own_locks.parent / "uv-cache"))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://some.one:s3cr3t%25word@127.0.0.1:{server.server_port}/simple/")
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()))

    looker = threading.Thread(target=look)
    looker.start()
    said: list[str] = []
    try:
        environment = environments.ensure("tiny", gpu=False, progress=said.append)
        (own_locks / "tiny-cpu.txt").write_text(f"{NAME}==3.0\n")
        with pytest.raises(SegbenchError, match="could not build") as caught:
            environments.ensure("tiny", gpu=False, progress=said.append)
    finally:
        over.set()
        looker.join()
        server.shutdown()
        server.server_close()
    assert ask(environment, "import segbench_tiny, os; print('PIP_INDEX_URL' in os.environ)").stdout == "False\n"
    assert any(NAME in line or "-r" in line for line in seen), "an installer was seen"
    marker = (environment.python.parents[1] / "environment.json").read_text()
    for text in (*seen, *said, str(caught.value), marker):
        assert "s3cr3t" not in text


def test_what_is_secret_of_an_index_is_taken_out_wherever_it_stands(tmp_path: Path) -> None:
    urls = "https://one:pa%40ss@a.org/s https://token@b.org/s https://c.org/s"
    index = package_index.Index.of({"index-url": urls})
    assert index.settings == {"index-url": "https://a.org/s https://b.org/s https://c.org/s"}
    told = index.variables(tmp_path)
    assert Path(told["NETRC"]).stat().st_mode & 0o777 == 0o600
    assert netrc.netrc(told["NETRC"]).authenticators("a.org") == ("one", "", "pa@ss")
    line = index.hidden(f"failed: {urls} pa@ss https://other:word@d.org/x")
    assert not any(secret in line for secret in ("pa%40ss", "pa@ss", "token", "word"))
    assert package_index.Index.of({"index-url": "https://c.org/s"}).variables(tmp_path) == {}


def test_an_environment_that_lost_a_library_is_not_ready_and_is_built_again() -> None:
    built = environments.ensure("tiny", gpu=False)
    (packages,) = (built.python.parents[1] / "lib").glob("python3*/site-packages")
    for lost in (packages / "segbench_tiny.py", packages / "segbench_tiny-1.0.dist-info", built.python):
        if lost.is_dir():
            shutil.rmtree(lost)
        else:
            lost.unlink()
        assert environments.find("tiny", gpu=False) is None
        said: list[str] = []
        environments.ensure("tiny", gpu=False, progress=said.append)
        assert said[0].startswith("tiny-cpu: removing a build that lacks")
        assert environments.find("tiny", gpu=False) == built
    assert not list(built.python.parents[2].glob(".*gone*"))


@pytest.mark.parametrize("how", ["killed", "the command ends"])
def test_what_a_build_has_started_ends_with_it(tmp_path: Path, how: str) -> None:
    told = tmp_path / "pid"
    daemon = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    installer = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], "
        "start_new_session=True); time.sleep(float(sys.argv[3]))"
    )
    lasting = "60" if how == "killed" else "1"
    command = guarded.command([sys.executable, "-c", installer, daemon, str(told), lasting])
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.Popen({command!r}, stdin=subprocess.PIPE).wait()"]
        if how == "killed"
        else command,
        stdin=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = psutil.Process(int(told.read_text()))
    if how == "killed":
        starter.kill()
    starter.wait()
    while left.is_running() and left.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
