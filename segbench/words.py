"""The words that segbench uses, each in a sentence; the command line, the report and the docs say the same."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "analysis": "a question to the store with a table, sentences and notes for an answer: ranking, transfer, ...",
    "artifacts": "what an attempt leaves beside its record: log, weights, predictions, job.json",
    "attempt": "one try at a run, with a number. A run has one finished attempt at most",
    "budget": "how long to train: epochs or iterations, and the batch size. paper is the published one; a "
    "factor or a number shortens it",
    "card": "what a method says of itself: name, family, environment, category, budget, settings, resources, "
    "licence, usability",
    "cell": "a biological cell, or its nucleus where that is the target; never a point of the grid",
    "dataset": "images with instance labels, split into train, val and test, each image with a tissue",
    "environment": "the isolated Python environment in which a family's methods live, built from a lock file",
    "evaluation": "a run's trained model scored on a test task, test tissue and post-operation",
    "family": "methods that share a library and an environment: MMDetection, DeepCell, ...",
    "fingerprint": "a hash of prepared data: the originals' contents, the preparation's settings and the code's "
    "revision",
    "grid": "many runs: methods x tasks x training tissues x seeds, as a preset or a file",
    "job": "the JSON file that a method's process is given: arrays by path, task, budget, seed, devices, output folder",
    "launch": "what runs a grid's runs that are not done yet; its driver is the store's one writer",
    "layout": "how synthetic images are laid out: as TissueNet's (nuclear and membrane channels, two targets) or as "
    "LIVECell's (one channel)",
    "metric": "a number between true and predicted cells: mAP, AP50, AP75, AR, AR50, AR75 and others",
    "method": "a segmentation method: Cellpose, StarDist, ...; the watershed is the baseline, with no training",
    "model": "what a training leaves: weights, with all that is needed to apply them",
    "phase": "a part of an attempt with a time of its own: wait, data, environment, import, load, train, "
    "calibrate, save, predict, evaluate",
    "post-operation": "what is done to predicted cells before they are scored: none, dilate or erode by r pixels",
    "record": "record.json, written whole and last by an attempt: all that the store knows of it",
    "results folder": "what --out names: results.duckdb, runs/ID/ and report.html",
    "run": "one point of a grid: method x task x training tissue x seed, with its settings and budget. Its "
    "id is a hash of all that decides its result",
    "standardised time": "T scaled to a batch of 8 and 50 epochs, so that budgets can be compared",
    "stage": "train, predict or evaluate: a part of an attempt with its own mark, status, time and log; one "
    "that fails is tried again alone",
    "store": "the DuckDB file with all results",
    "suite": "datasets that are ranked together",
    "T": "seconds of training alone, after everything is loaded, measured inside the method's process",
    "target": "what is segmented: nuclear, wholecell, or cell where a dataset does not say",
    "task": "what is segmented from what: dataset, input channels and target, such as tissuenet-wholecell-2ch",
    "tissue": "where an image comes from: an organ or a cell type. all is every tissue together",
    "training tissue": "the tissue whose images a run is trained on, or all",
    "window": "a piece of 256 x 256 pixels of a prepared image: what methods see",
}
"""As docs/words.md has them, which links to more."""


def plain_word(text: str) -> str:
    """Return the word that somebody asks for, as it stands here: without a plural, an underscore or capitals.

    Examples
    --------
    >>> plain_word("Windows"), plain_word("train_tissue"), plain_word("t"), plain_word("analyses")
    ('window', 'training tissue', 'T', 'analysis')
    """
    asked = " ".join(text.replace("_", " ").replace("-", " ").split()).lower()
    asked = _SAID_AS.get(asked, asked)
    known = {word.lower().replace("-", " "): word for word in WORDS}
    for one in (asked, asked.removesuffix("s"), asked.removesuffix("es"), asked.removesuffix("es") + "is"):
        if one in known:
            return known[one]
    return asked


_SAID_AS = {"train tissue": "training tissue", "test tissue": "tissue", "n windows": "window", "out": "results folder"}
