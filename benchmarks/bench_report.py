"""Measures the report of a full grid: 954 runs, 100,000 evaluations, 200 example images; and its use in Chromium.

Run: ``python benchmarks/bench_report.py [--folder DIR]``. Limits: 25 MB, 30 s to build, 2 s to be usable.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from segbench.analysis.report import build_report, write_report
from segbench.engine.grid.cards import all_cards
from segbench.engine.metrics.faults import KINDS
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import AttemptRow, EvaluationRow, GapRow, HistoryRow, Record, Status, TissueRow
from segbench.engine.results.store import StoreWriter
from segbench.engine.study.methods import STUDY_METHODS
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.methods.card import Card

TASKS = {
    "tissuenet-nuclear-1ch": ("tissuenet", ["nuclear"], "nuclear", TISSUENET_TISSUES),
    "tissuenet-nuclear-2ch": ("tissuenet", ["nuclear", "membrane"], "nuclear", TISSUENET_TISSUES),
    "tissuenet-wholecell-1ch": ("tissuenet", ["membrane"], "wholecell", TISSUENET_TISSUES),
    "tissuenet-wholecell-2ch": ("tissuenet", ["nuclear", "membrane"], "wholecell", TISSUENET_TISSUES),
    "livecell-wholecell": ("livecell", ["phase"], "wholecell", LIVECELL_TISSUES),
}
OTHER = {"tissuenet-nuclear-1ch": "tissuenet-wholecell-1ch", "tissuenet-wholecell-1ch": "tissuenet-nuclear-1ch"}
RADII = range(1, 21)
EVALUATIONS = 100_000
EXAMPLES = 200
START = datetime(2026, 1, 1, tzinfo=UTC)


def full_grid() -> list[Record]:
    """Return the records of 18 methods x 5 tasks x every training tissue: 954 runs with 100,000 evaluations."""
    cards = [all_cards()[name] for name in STUDY_METHODS]
    points = [
        (card, task, train)
        for card, (task, facts) in itertools.product(cards, TASKS.items())
        for train in ("all", *facts[3])
    ]
    assert len(points) == 954, len(points)
    records = [make_record(n, card, task, train) for n, (card, task, train) in enumerate(points)]
    total = sum(len(record.evaluations) for record in records)
    print(f"store: {len(records)} runs, {total:,} evaluations")
    assert total >= EVALUATIONS
    return records


def make_record(n: int, card: Card, task: str, train: str) -> Record:
    """Return one run of the grid with plausible scores."""
    dataset, channels, target, tissues = TASKS[task]
    draw = random.Random(n)
    skill = 0.3 + 0.4 * random.Random(card.name + task).random() - (0.15 if train != "all" else 0)

    def row(
        tissue: str, test_task: str, operation: str = "none", radius: int = 0, level: float = skill
    ) -> EvaluationRow:
        level = min(0.9, max(0.02, level + draw.uniform(-0.1, 0.1) + 0.1 * (tissue == train)))
        return EvaluationRow(
            test_task=test_task,
            test_tissue=tissue,
            operation=operation,
            radius=radius,
            map=level * 0.7,
            ap50=level,
            ap75=level * 0.8,
            ar=level * 0.85,
            ar50=level * 1.1,
            ar75=level * 0.9,
            n_images=100,
            n_truth=10_000,
            n_predictions=9_000,
        )

    own = [row(tissue, task) for tissue in ("all", *tissues)]
    crossed: list[EvaluationRow] = []
    if task in OTHER:
        operation = "dilate" if target == "nuclear" else "erode"
        crossed = [row(tissue, OTHER[task], level=skill - 0.2) for tissue in ("all", *tissues)] + [
            row(tissue, OTHER[task], operation, radius, skill - 0.1 - 0.01 * abs(radius - 6))
            for tissue in ("all", *tissues)
            for radius in (0, *RADII)
        ]
    run_id = f"{n:012x}"
    failed = n % 97 == 5
    epochs = card.budget.epochs or (None if card.budget.iterations else 50)
    hours = 3600 * (1 + draw.random() * 60)
    start = START + timedelta(minutes=n)
    return Record(
        attempt=AttemptRow(
            run_id=run_id,
            attempt=1,
            status=Status.FAILED if failed else Status.DONE,
            error="the method's process ended with status 1" if failed else None,
            log_tail="line of the log\n" * 40 if failed else None,
            method=card.name,
            method_title=card.title,
            method_revision=card.revision,
            family=card.family,
            environment=card.environment,
            category=card.category,
            trained=card.trained,
            attention=card.attention,
            usability=card.usability.composite,
            task=task,
            dataset=dataset,
            dataset_kind=dataset,
            dataset_fingerprint=f"{dataset}-1",
            channels=channels,
            n_channels=len(channels),
            target=target,
            train_tissue=train,
            seed=0,
            settings=dict(card.defaults),
            batch_size=card.budget.batch_size,
            epochs=epochs,
            iterations=card.budget.iterations,
            n_train_images=2_000,
            n_train_cells=200_000,
            n_parameters=44_000_000,
            versions={"torch": "2.0"},
            lock_hash="0" * 16,
            segbench_version="0.1.0",
            git_commit="0" * 40,
            host=f"node-{n % 20}",
            cpu_name="a CPU",
            num_cpus=4,
            gpu_names=["NVIDIA A100"],
            num_gpus=1,
            started_at=start,
            ended_at=start + timedelta(seconds=hours),
            folder=AttemptFolder(Path(), run_id, 1).relative,
        ),
        phases={
            "wait": 5.0,
            "data": 30.0,
            "import": 12.0,
            "load": 3.0,
            "train": hours,
            "predict": 200.0,
            "evaluate": 90.0,
        },
        evaluations=[] if failed else [*own, *crossed, *extra(n, tissues, task, row)],
        gaps=[] if failed else [gap(of, metric, draw) for of in own for metric in ("map", "ap50", "ap75")],
        history=[HistoryRow(epoch=e, loss=1 / e + draw.random() / 10) for e in range(1, 51)],
        tissues=[
            TissueRow(
                dataset_fingerprint=f"{dataset}-1",
                dataset=dataset,
                split=split,
                target=target,
                tissue=tissue,
                n_images=150 * (1 + random.Random(tissue).randrange(9)),
                n_cells=5_000,
                area=random.Random(tissue + "a").uniform(150, 900),
                elongation=random.Random(tissue + "e").uniform(0.4, 0.9),
                convexity=0.9,
                pixel_size_um=0.5,
            )
            for split in ("train", "val", "test")
            for tissue in ("all", *tissues)
        ],
    )


def gap(row: EvaluationRow, metric: str, draw: random.Random) -> GapRow:
    """Return what a score lacks to 1, shared out at random."""
    parts = [draw.random() for _ in KINDS]
    lost = 1 - (row.ap50 or 0)
    shares = {kind: lost * part / sum(parts) for kind, part in zip(KINDS, parts, strict=True)}
    told = {"test_task": row.test_task, "test_tissue": row.test_tissue, "metric": metric}
    return GapRow(score=row.ap50, gap=lost, **told, **shares)  # type: ignore[arg-type]


def extra(n: int, tissues: tuple[str, ...], task: str, row) -> list[EvaluationRow]:  # type: ignore[no-untyped-def]
    """Return a sweep on the own target for two-channel models, so that the store has as many rows as a full grid."""
    if "2ch" not in task or n % 20 > 12:
        return []
    return [row(tissue, task, "dilate", radius) for tissue in ("all", *tissues) for radius in RADII[:8]]


def write_examples(out: Path, records: list[Record]) -> int:
    """Write the examples of every run: 40 windows a task, of 256 x 256 pixels with about 80 cells each."""
    per_task = EXAMPLES // len(TASKS)
    bases = {}
    for number, (task, (_, channels, _, tissues)) in enumerate(TASKS.items()):
        truth = np.stack([cells(number * 100 + k) for k in range(per_task)])
        noise = np.random.default_rng(number)
        plane = (truth > 0) * 110 + noise.normal(60, 14, truth.shape)
        images = np.stack([plane] * len(channels), axis=1).clip(0, 255).astype(np.uint8)
        bases[task] = (truth, images, [tissues[k % len(tissues)] for k in range(per_task)])
    for record in records:
        attempt = record.attempt
        if attempt.train_tissue != "all" or attempt.status is not Status.DONE:
            continue
        truth, images, names = bases[attempt.task]
        draw = np.random.default_rng(int(attempt.run_id, 16))
        prediction = np.roll(truth, draw.integers(-2, 3, 2), axis=(1, 2))
        lost = draw.random(truth.max() + 1) < 0.15
        prediction = np.where(lost[prediction], 0, prediction).astype(np.int32)
        folder = ResultsFolder(out).attempt_at(attempt.folder).make()
        every = draw.uniform(0.3, 0.9, 10 * per_task)
        worst, *_, best = np.argsort(every[:per_task])
        np.savez(
            folder.example_arrays,
            rows=np.arange(per_task),
            images=images,
            truth=truth,
            prediction=prediction,
            ap50=every[:per_task],
            every_ap50=every.astype(np.float32),
        )
        meta = {
            "task": attempt.task,
            "dataset": attempt.dataset,
            "fingerprint": attempt.dataset_fingerprint,
            "tissues": names,
            "images": [f"image-{k}" for k in range(per_task)],
            "channels": attempt.channels,
            "telling": {"worst": int(worst), "best": int(best)},
        }
        folder.example_facts.write_text(json.dumps(meta))
    return per_task * len(TASKS)


def cells(seed: int, size: int = 256, n: int = 80) -> np.ndarray:
    """Return a label map (size, size) of about n ellipses that fill their surroundings."""
    draw = np.random.default_rng(seed)
    rows, columns = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    for label in range(1, n + 1):
        row, column, a, b, turn = *draw.integers(0, size, 2), *draw.uniform(7, 16, 2), draw.uniform(0, np.pi)
        y, x = rows - row, columns - column
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        labels[((u / a) ** 2 + (v / b) ** 2 <= 1) & (labels == 0)] = label
    return labels


def usable_after(path: Path) -> float | None:
    """Return the seconds until Chromium has drawn the opened file's first sections and answers; None without it."""
    import shutil

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver_path:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "no-first-run",
            "disable-sync",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(driver_path))
        try:
            driver.get("about:blank")
            begin = time.monotonic()
            driver.get(path.resolve().as_uri())
            while not driver.execute_script("return document.querySelector('section[data-drawn]') !== null"):
                time.sleep(0.02)
            return time.monotonic() - begin
        finally:
            driver.quit()


def main() -> int:
    """Print the figures; return 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the store and the report here (a folder that does not exist)")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        out = folder or Path(temporary) / "results"
        begin = time.monotonic()
        records = full_grid()
        StoreWriter(ResultsFolder(out)).add(records)
        print(f"examples: {write_examples(out, records)} images; made in {time.monotonic() - begin:.1f} s")
        begin, used = time.monotonic(), time.process_time()
        report = build_report(ResultsFolder(out))
        path = ResultsFolder(out).report
        write_report(report, path)
        seconds, size = time.monotonic() - begin, path.stat().st_size / 1e6
        print(
            f"report: {size:.1f} MB (limit 25), built in {seconds:.1f} s (limit 30; "
            f"{time.process_time() - used:.1f} s of CPU)"
        )
        usable = usable_after(path)
        print("no chromium: not opened" if usable is None else f"usable in Chromium after {usable:.2f} s (limit 2)")
        return int(size > 25 or seconds > 30 or (usable or 0) > 2)


if __name__ == "__main__":
    sys.exit(main())
