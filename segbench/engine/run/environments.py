"""Builds and finds the isolated Python environments in which the methods run, each from a pinned lock file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from segbench.engine.run import guarded
from segbench.engine.run.complete import what_is_missing
from segbench.engine.run.lock_files import ANY, ENGINE, FOREIGN, UNRESOLVED, LockFiles, lock_files, pins
from segbench.engine.run.package_index import SECRET_VARIABLES, Index, pip_settings, uv_options
from segbench.errors import SegbenchError
from segbench.paths import cache_folder
from segbench.small_files import write_whole

_MARKER = "environment.json"
_TAIL = 12
_NOT_PASSED_ON = frozenset(
    # the last: what no process may compile for the next one takes three times as long to import
    ("PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE")
)

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Variables with which Python does not look for modules in the folder that it is started from (3.11 and later)."""
NEED_DISTUTILS = ("mmengine", "onedl-mmengine")
"""Distributions that import distutils without saying so: MMEngine 0.10 (``mmengine/utils/dl_utils/collect_env.py``)."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """A Python interpreter with a family's libraries."""

    name: str
    """``engine``, ``tensorflow``, ``cellpose``, ..."""
    variant: str
    """``cpu`` or ``gpu``: which of the two locks it was built from; ``any`` where one serves both."""
    python: Path
    """The interpreter to start."""
    lock_hash: str
    """The first 16 hexadecimal digits of the SHA-256 of its pinned versions."""
    versions: Mapping[str, str]
    """Version by distribution name (lower case, hyphens)."""


def lock_versions(environment: str, variant: str = "cpu") -> dict[str, str]:
    """Return the pinned versions of an environment by distribution name (lower case, hyphens).

    For ``engine`` they are those installed beside the running interpreter; for an environment that the user has named
    (see :func:`override`) those installed there; else those of the packaged lock. Nothing is built. What comes as
    ``NAME-cpu`` answers to ``NAME`` too: it is the same library, so that a run is the same run on either build.

    Raises
    ------
    SegbenchError
        Where no such environment or lock exists.
    """
    if environment == ENGINE:
        return dict(_installed_here())
    named = override(environment)
    if named is None:
        files = lock_files(environment)
        versions = _parse(files.text(ANY if files.serves_both else variant if files.has(variant) else _other(variant)))
    else:
        versions = dict(_installed_in(named))
    return {**{name.removesuffix("-cpu"): version for name, version in versions.items()}, **versions}


def problem_of(environment: str) -> str | None:
    """Return why an environment cannot be had here, in one line; None where it can. Nothing is built."""
    try:
        if environment == ENGINE:
            return None
        named = override(environment)
        if named is None:
            lock_versions(environment)
        else:
            _check_distutils(environment, named)
    except SegbenchError as error:
        return str(error)
    return None


def find(environment: str, *, gpu: bool) -> Environment | None:
    """Return an environment that is ready to use, or None where it has to be built first.

    Without a GPU the GPU variant serves too (its libraries run on processors), where only that is built.
    """
    ready = _given(environment, gpu)
    if ready is not None:
        return ready
    files = lock_files(environment)
    wanted = (ANY,) if files.serves_both else ("gpu",) if gpu else ("cpu", "gpu")
    for variant in wanted:
        if not gpu and not files.has(variant):
            continue
        folder, built = _describe(environment, variant)
        if _is_ready(folder, built):
            return built
    return None


def ensure(environment: str, *, gpu: bool, progress: Report | None = None) -> Environment:
    """Return an environment, building it first where needed.

    Parameters
    ----------
    environment
        Its name, as methods' cards give it.
    gpu
        Whether its libraries are to use NVIDIA GPUs.
    progress
        Called with one line of text at a time while it is built.

    Raises
    ------
    SegbenchError
        For an unknown name, and where the build fails: with the installer's last
        lines. What was built so far is removed.
    """
    report = progress or (lambda _line: None)
    ready = _given(environment, gpu)
    if ready is not None:
        return ready
    found = find(environment, gpu=gpu)
    if found is not None:
        return found
    files = lock_files(environment)
    variant = ANY if files.serves_both else "gpu" if gpu or not files.has("cpu") else "cpu"
    try:
        return _build(environment, variant, report)
    except _NoSuchWheelError as error:
        if variant != "cpu" or not files.has("gpu"):
            raise
        report(
            f"{environment}-cpu: your package index has no {error.requirement}; taking the build for GPUs instead, "
            "which runs on processors too but is gigabytes larger"
        )
        return _build(environment, "gpu", report)


def override(environment: str) -> Path | None:
    """Return the interpreter that the user has named for an environment, or None.

    The environment variable ``SEGBENCH_ENV_NAME`` (upper case, ``-`` as ``_``) comes first, then the entry of that name
    in ``environments.yaml`` in the cache folder.

    Raises
    ------
    SegbenchError
        Where the named interpreter does not exist.
    """
    variable = "SEGBENCH_ENV_" + re.sub(r"[^A-Z0-9]", "_", environment.upper())
    text, source = os.environ.get(variable), variable
    if not text:
        config = cache_folder() / "environments.yaml"
        if not config.exists():
            return None
        import yaml

        entries = yaml.safe_load(config.read_text()) or {}
        if not isinstance(entries, dict):
            raise SegbenchError(f"{config}: expected lines 'environment: /path/to/python'")
        text, source = entries.get(environment), f"{config}, entry {environment!r}"
        if not text:
            return None
    python = Path(str(text)).expanduser()
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise SegbenchError(f"{source} names {python}, which is not an executable Python interpreter")
    return python.absolute()


def subprocess_env(environment: Environment, modules: Sequence[str] = ("segbench",)) -> dict[str, str]:
    """Return all environment variables for a method's subprocess.

    Its ``PYTHONPATH`` is a folder of the cache with links to the top packages of ``modules`` alone, so that the
    environment's Python finds segbench (and a third party's method) and nothing else of the engine's.

    Parameters
    ----------
    environment
        Whose interpreter will be started; in a folder of the run, for one older than Python 3.11 looks there.
    modules
        Modules that the subprocess must be able to import, such as ``my_methods.fancy``.
    """
    env = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON | SECRET_VARIABLES}
    env["PYTHONPATH"] = str(_shim(("segbench", *modules)))
    env["PYTHONNOUSERSITE"] = "1"
    env |= SAFE_PATH
    env["PYTHONUNBUFFERED"] = "1"
    env["MPLBACKEND"] = "Agg"
    env["PATH"] = os.pathsep.join([str(environment.python.parent), env.get("PATH", os.defpath)])
    return env


class _NoSuchWheelError(SegbenchError):
    """The package index does not have a pinned local build, such as ``torch==2.13.0+cpu``."""

    def __init__(self, message: str, requirement: str) -> None:
        super().__init__(message)
        self.requirement = requirement


def _given(environment: str, gpu: bool) -> Environment | None:
    """Return the environments that are never built: the engine's own, and those that the user has named."""
    variant = "gpu" if gpu else "cpu"
    if environment == ENGINE:
        versions = _installed_here()
        return Environment(ENGINE, variant, Path(sys.executable), _digest(_as_lock(versions)), versions)
    python = override(environment)
    if python is None:
        return None
    _check_distutils(environment, python)
    versions = _installed_in(python)
    return Environment(environment, variant, python, _digest(_as_lock(versions)), versions)


def _check_distutils(environment: str, python: Path) -> None:
    """Raise SegbenchError where a library needs distutils, which Python 3.12 has no more, and nothing brings it.

    setuptools does: the method's process imports it first.
    """
    needing = [name for name in NEED_DISTUTILS if name in _installed_in(python)]
    code = "import importlib.util as u; print(not any(map(u.find_spec, ('distutils', 'setuptools'))))"
    if needing and _said_by(python, code) == "True":
        raise SegbenchError(
            f"environment {environment!r}: {', '.join(needing)} needs distutils, which {python} does not have "
            f"(Python 3.12 took it out): install setuptools there, with '{python} -m pip install setuptools'"
        )


def _describe(environment: str, variant: str) -> tuple[Path, Environment]:
    """Return an environment's folder, whether built or not, and what it will be."""
    versions = _parse(lock_files(environment).text(variant))
    lock_hash = _digest(_as_lock(versions))
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    home = (cache_folder() / "environments").resolve()  # its interpreters remember where they were installed
    folder = home / f"{environment}-{variant}-{lock_hash}-{tag}"
    return folder, Environment(environment, variant, folder / "bin" / "python", lock_hash, versions)


def _other(variant: str) -> str:
    return "gpu" if variant == "cpu" else "cpu"


def _parse(lock: str) -> dict[str, str]:
    return {
        _canonical(name): version
        for _, pin in pins(lock)
        for name, version in [pin.split(" ", maxsplit=1)[0].split("==", maxsplit=1)]
    }


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _as_lock(versions: Mapping[str, str]) -> str:
    return "\n".join(f"{name}=={version}" for name, version in sorted(versions.items()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _installed_here() -> dict[str, str]:
    return {_canonical(d.name): d.version for d in importlib.metadata.distributions() if d.name}


@functools.cache
def _installed_in(python: Path) -> dict[str, str]:
    code = (
        "import json, importlib.metadata as m; "
        "print(json.dumps({d.name: d.version for d in m.distributions() if d.name}))"
    )
    return {_canonical(name): version for name, version in json.loads(_said_by(python, code)).items()}


@functools.cache
def _said_by(python: Path, code: str) -> str:
    """Return what an interpreter prints; SegbenchError where it ends with an error."""
    # the folder too, for an interpreter that is older than PYTHONSAFEPATH
    env, folder = {**os.environ, **SAFE_PATH}, python.parent
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env=env, cwd=folder)
    if done.returncode != 0:
        raise SegbenchError(f"{python} cannot list what is installed: {_last_lines(done.stderr, 1)}")
    return done.stdout.strip()


def _build(environment: str, variant: str, report: Report) -> Environment:
    folder, built = _describe(environment, variant)
    label = f"{environment}-{variant}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"{label}: waiting for another process that is building it")
            lock.acquire()
        try:
            if not _is_ready(folder, built):
                _build_locked(folder, built, report)
        finally:
            lock.release()
    except OSError as error:
        raise SegbenchError(f"cannot build the environment {label} under {folder.parent}: {error}") from error
    return built


def _is_ready(folder: Path, built: Environment) -> bool:
    """Return whether an environment was built to its end, and what it was built of is still there."""
    return (folder / _MARKER).is_file() and what_is_missing(folder, built.versions) is None


def _build_locked(folder: Path, built: Environment, report: Report) -> None:
    label = f"{built.name}-{built.variant}"
    for left in folder.parent.glob(f".{folder.name}.gone-*"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        missing = what_is_missing(folder, built.versions) if (folder / _MARKER).exists() else None
        report(f"{label}: removing a build that {f'lacks {missing}' if missing else 'did not finish'}")
        # under another name first: whatever still writes into it writes there
        gone = folder.with_name(f".{folder.name}.gone-{uuid.uuid4().hex[:8]}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    try:
        _install(folder, built, report)
    except BaseException:  # also on Ctrl-C: nothing half-built stays
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _install(folder: Path, built: Environment, report: Report) -> None:
    label = f"{built.name}-{built.variant}"
    files, uv = lock_files(built.name), _find_uv()
    index = Index.of(pip_settings(SAFE_PATH))
    start = time.monotonic()
    report(f"{label}: installing {len(built.versions)} packages with {'uv' if uv else 'pip'} into {folder}")
    with tempfile.TemporaryDirectory(prefix="segbench-build-") as scratch:
        env = {**os.environ, **SAFE_PATH, **index.variables(Path(scratch))}
        if uv and "cert" in index.settings:
            env["SSL_CERT_FILE"] = index.settings["cert"]
        if not uv:
            env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        for step in _steps(folder, built, files, uv, index, Path(scratch)):
            _run(step, env, label, report, index)
    _compile(folder, built, files, label, report)
    seconds = round(time.monotonic() - start, 1)
    about = {"name": built.name, "variant": built.variant, "lock_hash": built.lock_hash, "seconds": seconds}
    told = {**about, "installer": "uv" if uv else "pip", "versions": built.versions}
    write_whole(folder / _MARKER, json.dumps(told, indent=1))
    report(f"{label}: ready after {seconds:.0f} s")


def _steps(
    folder: Path, built: Environment, files: LockFiles, uv: str | None, index: Index, scratch: Path
) -> Iterator[list[str]]:
    """Yield the commands that make an environment, in order."""
    unresolved, foreign = files.beside(UNRESOLVED), files.beside(FOREIGN)
    yield (
        [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)]
        if uv
        else [sys.executable, "-m", "venv", str(folder)]
    )
    for lock in _by_hashes([path for path in (files.lock(built.variant), unresolved) if path.exists()], scratch):
        hashed = ["--require-hashes"] if lock.name.startswith(_HASHED) else []
        if uv:
            options = [
                "--no-deps",
                "--no-progress",
                "--index-strategy",
                "unsafe-best-match",
                *uv_options(index.settings),
            ]
            yield [uv, "pip", "install", "--python", str(built.python), *options, *hashed, "-r", str(lock)]
        else:
            options = ["--no-deps", "--no-compile", "--progress-bar", "off"]
            options += ["--ignore-requires-python"] if unresolved.exists() else []
            yield [str(built.python), "-m", "pip", "install", *options, *hashed, "-r", str(lock)]
    if foreign.exists():
        python = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else [str(built.python), "-m", "pip"]
        yield [
            *[*python, "install", "--no-deps", "--no-compile", "--only-binary=:all:", "--python-version", "3.10"],
            *["--require-hashes", "--progress-bar", "off", "--target", str(folder / FOREIGN), "-r", str(foreign)],
        ]  # fmt: skip


_HASHED = "hashed"


def _by_hashes(locks: Sequence[Path], scratch: Path) -> Iterator[Path]:
    """Yield the pins of locks as files: those with hashes, for which the installer insists on them, and the others.

    Installers take one way for a whole file, and a build that is on no index (``torch==2.13.0+cpu``) has no hash there.
    """
    lines = [pin for lock in locks for _, pin in pins(lock.read_text())]
    with_hash = [line for line in lines if "--hash=" in line]
    for name, some in ((_HASHED, with_hash), ("bare", [line for line in lines if line not in with_hash])):
        if some:
            path = scratch / f"{name}.txt"
            path.write_text("\n".join(some) + "\n")
            yield path


def _compile(folder: Path, built: Environment, files: LockFiles, label: str, report: Report) -> None:
    own = folder / FOREIGN
    if files.beside(FOREIGN).exists():
        packages = next((folder / "lib").glob("python3*")) / "site-packages"
        (packages / f"{FOREIGN}.pth").write_text(f"{own}\n")
    report(f"{label}: byte-compiling")
    # some distributions ship files that do not compile (templates, Python 2): that
    # is theirs, and no failure of the build
    folders = [str(path) for path in (folder / "lib", own) if path.exists()]
    compile_all = [str(built.python), "-m", "compileall", "-q", "-j", "2", *folders]
    with _guarded(compile_all, {**os.environ, **SAFE_PATH}) as process:
        for _ in process.stdout or ():
            pass


@contextlib.contextmanager
def _guarded(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command that ends with this process, however that ends; its output is one stream."""
    with subprocess.Popen(
        guarded.command(command), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _run(command: list[str], env: Mapping[str, str], label: str, report: Report, index: Index) -> None:
    """Run one step of a build, reporting the lines that tell how far it is; a failure is told by its last lines."""
    lines: list[str] = []
    with _guarded(command, env) as process:
        for raw in process.stdout or ():
            line = index.hidden(raw.strip())
            if line:
                lines.append(line)
            if line.startswith(("Downloading", "Prepared", "Installing", "Building", "Built")):
                report(f"{label}: {line if len(line) < 100 else line[:97] + '...'}")
    if process.returncode == 0:
        return
    output = "\n".join(lines)
    message = (
        f"could not build the environment {label}: {shlex.join(command[:4])} ... exited with status "
        f"{process.returncode}; its last lines: {_last_lines(output, _TAIL)}"
    )
    missing = re.search(r"(?:No matching distribution found for|there is no version of) ([\w.-]+==[\w.]+\+\w+)", output)
    raise _NoSuchWheelError(message, missing[1]) if missing else SegbenchError(message)


def _last_lines(text: str, n: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-n:]) or "(no output)"


def _find_uv() -> str | None:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def _shim(modules: Sequence[str]) -> Path:
    """Return a folder of links to the top packages of ``modules``, made where it does not exist."""
    targets: dict[str, Path] = {}
    for module in modules:
        top = module.split(":")[0].split(".")[0]
        spec = importlib.util.find_spec(top)
        if spec is None:
            raise SegbenchError(f"module {top!r} is not installed beside segbench")
        if spec.submodule_search_locations:
            targets[top] = Path(next(iter(spec.submodule_search_locations))).resolve()
        elif spec.origin is not None and Path(spec.origin).is_file():
            targets[Path(spec.origin).name] = Path(spec.origin).resolve()
        else:
            raise SegbenchError(f"module {top!r} has no file that a method's environment could import")
    folder = cache_folder() / "shims" / _digest(json.dumps(sorted((name, str(path)) for name, path in targets.items())))
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        link = folder / name
        if link.is_symlink() and link.readlink() == target:
            continue
        part = folder / f".{name}.{uuid.uuid4().hex}"  # two threads of a process may make it at once
        part.symlink_to(target)
        part.replace(link)
    return folder
