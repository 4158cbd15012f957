"""Which datasets are registered here, and what of them a grid needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, registered
from segbench.engine.data.cache import find_prepared
from segbench.engine.data.subsets import training_pictures
from segbench.engine.grid import Catalogue, DatasetFacts
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Datasets:
    """The registered datasets, and those of the study that are not."""

    specs: Mapping[str, DatasetSpec] = field(default_factory=dict)
    """The registered ones, by name."""
    catalogue: Catalogue = field(default_factory=Catalogue)
    """Their tasks and tissues, and the study's."""
    sizes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Training windows of those that are prepared, by (fingerprint, training tissue)."""
    test_windows: Mapping[str, int] = field(default_factory=dict)
    """Test windows of those that are prepared, by fingerprint."""


def known_datasets() -> Datasets:
    """Return the datasets as they are registered and prepared now; one that cannot be read blocks no other."""
    import polars as pl

    specs = {spec.name: spec for spec in registered()}
    facts: dict[str, DatasetFacts] = {}
    absent: dict[str, str] = {}
    sizes: dict[tuple[str, str], int] = {}
    test_windows: dict[str, int] = {}
    for name, spec in specs.items():
        fingerprint, images = None, dict[str, int]()
        try:
            prepared = find_prepared(spec)
            if prepared is not None:
                windows = prepared.index("train")["tissue"].value_counts().rows()
                fingerprint = prepared.fingerprint
                of_tissue = [*windows, (ALL_TISSUES, sum(n for _, n in windows))]
                test_windows[fingerprint] = prepared.n_windows("test")
                sizes |= {(fingerprint, tissue): n for tissue, n in of_tissue}
                images = training_pictures(prepared)
            facts[name] = DatasetFacts(dataset_tasks(spec), dataset_tissues(spec), fingerprint, images)
        except (SegbenchError, OSError, pl.exceptions.PolarsError) as error:
            absent[name] = " ".join(str(error).split())
    return Datasets(specs, Catalogue(facts, absent).with_study(), sizes, test_windows)


def has_annotators(spec: DatasetSpec) -> bool:
    """Return whether test pictures of a prepared dataset have several annotations; False where it is not prepared."""
    from segbench.engine.data.annotators import annotated_again

    try:
        prepared = find_prepared(spec)
        return prepared is not None and bool(annotated_again(prepared, "test"))
    except (SegbenchError, OSError, ValueError):
        return False
