"""What the fuzzer damages besides stores and records: files of methods, of datasets, of strangers and of users."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from damage import Failures, damaged, other_value, outcome

from segbench.engine.data import DatasetSpec, ensure_prepared
from segbench.engine.data.opening import open_source
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.files.archives import unpack
from segbench.engine.grid import Catalogue, expand, read_grid
from segbench.engine.grid.settings import check_changes
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.models.packages import unpack_package
from segbench.engine.results.attempts import AttemptFolder, progress_line
from segbench.engine.results.status import describe_progress
from segbench.errors import SegbenchError
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.predictions import LabelInstances, PredictionSet, PredictionWriter

Rounds = Iterator[str]
ATTEMPT_FAILS = (SegbenchError, MemoryError, OSError, ValueError, RuntimeError)
"""What an attempt's record tells as its failure: of predictions, nothing else may come."""


def _fresh(scratch: Path, sound: Path) -> Path:
    there = scratch / "round"
    shutil.rmtree(there, ignore_errors=True)
    shutil.copytree(sound, there)
    return there


def _damage(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    kind, changed = damaged(content, rng)
    if path.suffix == ".json" and rng.random() < 0.5:
        with contextlib.suppress(ValueError):  # one that an earlier round damaged, and nobody needs
            kind, changed = other_value(content, rng)
    path.write_bytes(changed)
    return f"{path.name}, {kind}"


def checkpoints(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage a training's state, or take a part of it away: the one before it is taken up, or none."""
    sound, states = scratch / "sound", (b"1" * 100, b"2" * 100)
    kept = Checkpoints(sound, every_s=0)
    kept.begin([{"epoch": 1, "step": None, "loss": 0.5}])
    for state in states:
        with kept.writing() as folder:
            (folder / "state.bin").write_bytes(state)
    while True:
        there = _fresh(scratch, sound)
        victim = rng.choice([path for path in sorted(there.rglob("*")) if path.is_file()])
        if rng.random() < 0.15:
            shutil.rmtree(victim.parent) if victim.parent != there else victim.unlink()
            what = f"{victim.name}, gone"
        else:
            what = _damage(victim, rng)
        found: list[Path | None] = []
        with contextlib.redirect_stderr(io.StringIO()):
            told = outcome(lambda there=there, found=found: found.append(Checkpoints(there).latest()), what, failures)
        state = found[0] if found else None
        if told == "well" and state is not None and (state / "state.bin").read_bytes() not in states:
            failures.append(f"{what}: a state was taken up that nobody wrote")
        yield "no state is left" if state is None else "a sound state is taken up"


def progress(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage what a method tells while it works: read as the driver and ``grid status`` read it."""
    lines = [{"phase": "train", "epoch": n, "epochs": 9, "loss": 0.5} for n in range(5)]
    lines.append({"phase": "predict", "done": 3, "total": 7})
    content = [json.dumps(line).encode() for line in lines]
    shutil.rmtree(scratch / "round", ignore_errors=True)
    attempt = AttemptFolder(scratch / "round", "0" * 12, 1).make()
    while True:
        n = rng.randrange(len(content))
        kind, bad = other_value(content[n], rng) if rng.random() < 0.5 else damaged(content[n], rng)
        attempt.job.progress.write_bytes(b"\n".join([*content[:n], bad, *content[n + 1 :]]) + b"\n")
        understood = 0

        def read() -> None:
            nonlocal understood
            for line in (*attempt.progress_since(0).split(b"\n"), *attempt.progress_end()):
                found = progress_line(line)
                if found is not None:
                    understood += 1
                    if not describe_progress(found).isprintable():
                        raise ValueError("a terminal would obey it")

        outcome(read, f"progress, {kind}", failures)
        if understood < 2 * (len(lines) - 1):
            failures.append(f"progress, {kind}: other lines were lost")
        yield "read" if understood == 2 * len(lines) else "the line is passed over"


def npz(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage a TissueNet archive, and read every image of it."""
    sound, noise = scratch / "sound", np.random.default_rng(0)
    sound.mkdir()
    for split in ("train", "test"):
        y = noise.integers(0, 4, (3, 32, 32, 2)).astype(np.int32)
        arrays: dict[str, Any] = {"X": noise.random(y.shape, np.float32), "y": y}
        arrays["tissue_list"] = np.array(["Breast", "GI", "Skin"], object if split == "test" else None)
        (np.savez_compressed if split == "train" else np.savez)(sound / f"tissuenet_v1.0_{split}.npz", **arrays)

    def read(there: Path) -> None:
        source = open_source(DatasetSpec("fuzzed", "tissuenet", str(there)))
        for split in source.counts():
            for load in source.images(split):
                load()

    read(sound)
    while True:
        there = _fresh(scratch, sound)
        what = _damage(rng.choice(sorted(there.glob("*.npz"))), rng)
        yield f"archive {'read' if outcome(lambda there=there: read(there), what, failures) == 'well' else 'refused'}"


def _folder_dataset(folder: Path) -> DatasetSpec:
    """Write a dataset of four small images."""
    from PIL import Image

    folder.mkdir()
    rows, noise = ["image,mask,split,tissue"], np.random.default_rng(0)
    for n, split in enumerate(("train", "train", "val", "test")):
        labels = np.zeros((48, 48), np.uint16)
        labels[8:20, 8:20], labels[28:40, 20:44] = 1, 2
        image = (noise.random((48, 48)) * 60 + 150 * (labels > 0)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"i{n}.png")
        Image.fromarray(labels).save(folder / f"m{n}.png")
        rows.append(f"i{n}.png,m{n}.png,{split},skin")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    preparation = PreparationSettings(window=48, step=48, clahe_kernel=0)
    return DatasetSpec("fuzzed", "folder", str(folder), {"target": "cell"}, preparation)


def prepared(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage a prepared dataset in the cache: it is prepared anew, to the last bit as it was."""
    spec = _folder_dataset(scratch / "sound")
    data = ensure_prepared(spec, workers=1)
    parts = {path.name: path.read_bytes() for path in data.folder.iterdir() if path.suffix in (".npy", ".parquet")}
    while True:
        cache = Path(os.environ["SEGBENCH_CACHE"]) / "prepared"
        files = [path for path in (*data.folder.iterdir(), *(cache / "known").iterdir()) if path.is_file()]
        what = _damage(rng.choice(sorted(files)), rng)
        found: list[Any] = []
        outcome(lambda found=found: found.append(ensure_prepared(spec, workers=1)), what, failures)
        if found and {name: (found[0].folder / name).read_bytes() for name in parts} != parts:
            failures.append(f"{what}: what is used is not what was prepared")
        yield "as it was prepared" if found else "not prepared"


def packages(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage a package: refused and gone, or every file of it as it was."""
    sound = scratch / "sound"
    sound.mkdir()
    _package(sound)
    whole = unpack(sound / "model.zip", scratch / "plain")
    while True:
        there = _fresh(scratch, sound)
        what = _damage(there / "model.zip", rng)
        told = outcome(lambda there=there: unpack(there / "model.zip", there / "out"), what, failures)
        if told == "well":
            got = {name: (there / "out" / name).read_bytes() for name in whole}
            if got != {name: (scratch / "plain" / name).read_bytes() for name in whole}:
                failures.append(f"{what}: unpacked with other content")
        elif (there / "out").exists():
            failures.append(f"{what}: a part of it was left")
        opened = outcome(lambda there=there: unpack_package(there / "model.zip", there / "model"), what, failures)
        yield "package opened" if opened == "well" else "package refused"


def _package(folder: Path) -> None:
    """Export the package of a run of the watershed on the small dataset."""
    from segbench.engine.data.registry import register
    from segbench.engine.models.exporting import Told, export_model
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.scheduler import GridRequest, LaunchOptions, launch

    spec = _folder_dataset(folder.parent / "merged")
    register(spec)
    out = ResultsFolder(folder / "results")
    grid = {"methods": ["watershed"], "tasks": ["fuzzed-cell-1ch"]}
    runs, _ = launch(GridRequest.of(grid=grid), out, LaunchOptions(executor="inline", cpu=True))
    done = export_model(
        out, runs[0].id, folder, Told("CC-BY-4.0", "CC0-1.0", ("A. Person",), "https://example.org/data")
    )
    done.path.rename(folder / "model.zip")
    shutil.rmtree(folder / "results")


def grids(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage a grid file, and expand what it says."""
    block = {"methods": ["stardist", "watershed"], "tasks": ["tissuenet-nuclear-1ch"], "tissues": ["all", "Breast"]}
    about = {"budgets": {"stardist": {"epochs": 3, "batch_size": 2}}, "settings": {"stardist": {"n_rays": 16}}}
    content = json.dumps({"blocks": [block | {"seeds": [0, 1]}], "evaluation": "whole", **about}, indent=1).encode()
    (scratch / "round").mkdir(exist_ok=True)
    path, catalogue = scratch / "round" / "grid.yaml", Catalogue().with_study()

    def read() -> None:
        spec = read_grid(path)
        check_changes(spec)
        for run in expand(spec, catalogue):
            if not -(2**31) <= run.seed < 2**31:
                raise ValueError(f"seed {run.seed} fits no store")

    path.write_bytes(content)
    read()
    while True:
        kind, bad = other_value(content, rng) if rng.random() < 0.6 else damaged(content, rng)
        path.write_bytes(bad)
        yield f"grid {'read' if outcome(read, f'grid, {kind}', failures) == 'well' else 'refused'}"


def predictions(scratch: Path, rng: random.Random, failures: Failures) -> Rounds:
    """Damage what a method has predicted, and score it: as it was, or the attempt fails with a reason."""
    sound, truth = scratch / "sound", np.zeros((3, 32, 32), np.int32)
    truth[:, 4:12, 4:12], truth[:, 16:28, 10:20] = 1, 2
    with PredictionWriter(sound, "labels", 3, 32, 32) as writer:
        for labels in truth:
            writer.add(LabelInstances(labels, np.array([0.9, 0.5])))
    while True:
        there = _fresh(scratch, sound)
        what = _damage(rng.choice(sorted(there.iterdir())), rng)

        def read(there: Path = there, what: str = what) -> None:
            try:
                found = evaluate_prediction_set(truth, PredictionSet(there), groups=["skin"] * 3).pooled
            except ATTEMPT_FAILS as error:
                raise SegbenchError(" ".join(str(error).split()) or type(error).__name__) from None
            if not all(-1 <= value <= 1 for value in found.metrics().values()):
                failures.append(f"{what}: a score that is none")

        yield f"predictions {'scored' if outcome(read, what, failures) == 'well' else 'refused'}"


FILE_KINDS: dict[str, Callable[[Path, random.Random, Failures], Rounds]] = {
    "checkpoints": checkpoints,
    "progress": progress,
    "npz": npz,
    "prepared": prepared,
    "packages": packages,
    "grids": grids,
    "predictions": predictions,
}
