"""The builder of environments, with a distribution made here, so that no registry is asked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.grid.cards import all_cards
from segbench.engine.run import environments, lock_files
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


@pytest.mark.parametrize("name", ["tensorflow-cpu", "tensorflow-gpu", "cellpose-cpu", "cellpose-gpu", "torch"])
def test_the_packaged_locks_are_fully_pinned_and_hold_the_methods_libraries(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    lines = (lock_files.LOCKS / f"{name}.txt").read_text().splitlines()
    assert all(line.count("==") == 1 and ";" not in line for line in lines if not line.startswith("#"))
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
    options = list(environments._uv_options(environments._pip_settings()))
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
