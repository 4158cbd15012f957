"""A run's model becomes a package, which is valid, predicts what it says, and is taken in elsewhere or refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segbench.engine.files.archives import SUMS, unpack, write_archive
from segbench.engine.models.exporting import Told, export_model
from segbench.engine.models.facts import FACTS
from segbench.engine.models.importing import import_package, model_rows
from segbench.engine.models.packages import EXPECTED, RDF, README, TEST_INPUT, TEST_OUTPUT, facts_of, opened
from segbench.engine.models.reproduce import reproduce_package
from segbench.engine.models.strict import problems_of
from segbench.engine.models.trained import DESCRIPTION, find_model
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.errors import SegbenchError

TOLD = Told("CC-BY-4.0", "CC0-1.0", ("A. Person",), "https://example.org/data")


def _run(results: ResultsFolder, method: str) -> str:
    return str(query(results, "select run_id from attempts where method = ?", [method]).item())


@pytest.fixture(scope="module", params=["threshold", "watershed"])
def package(results: ResultsFolder, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return the package of a trained model and of a method without training."""
    done = export_model(results, _run(results, request.param), tmp_path_factory.mktemp("packages"), TOLD)
    assert done.notes == ()
    return done.path


@pytest.fixture
def changed(package: Path, tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Return a function that makes a package with other content, whose list of checksums is right."""

    def change(files: dict[str, bytes]) -> Path:
        unpack(package, tmp_path / "whole")
        kept = {path.relative_to(tmp_path / "whole").as_posix(): path for path in (tmp_path / "whole").rglob("*")}
        content: dict[str, Any] = {name: path for name, path in kept.items() if path.is_file() and name != SUMS}
        write_archive(tmp_path / "changed.zip", content | files)
        shutil.rmtree(tmp_path / "whole")
        return tmp_path / "changed.zip"

    return change


def test_bioimageio_finds_nothing_wrong_with_it(package: Path) -> None:
    found = problems_of(package)
    assert found is not None
    # a maintainer's account, which nobody told, and of the plugin a paper, which it does not have
    assert [line for line in found if not line.startswith((": Missing `maintainers`", "cite: Needs"))] == []


def test_it_tells_what_people_ask(package: Path, results: ResultsFolder) -> None:
    facts = facts_of(package)
    with opened(package) as found:
        rdf = yaml.safe_load((found.folder / RDF).read_text())
        card = (found.folder / README).read_text()
        window, labels = np.load(found.folder / TEST_INPUT), np.load(found.folder / TEST_OUTPUT)
    assert (facts.licence, facts.data.licence, facts.authors) == ("CC-BY-4.0", "CC0-1.0", ("A. Person",))
    assert facts.scores[0].test_tissue == "all"
    stored = query(results, "select accuracy from accuracy where run_id = ? and test_tissue = 'all'", [facts.run_id])
    assert facts.pooled is not None
    assert facts.pooled.accuracy == pytest.approx(stored.item())
    assert facts.pooled.accuracy_low is not None
    assert facts.pooled.accuracy_high is not None
    assert facts.pooled.accuracy_low <= facts.pooled.accuracy_high
    assert (facts.training.images is not None) is facts.trained
    assert facts.likeness
    assert (rdf["license"], rdf["authors"]) == ("CC-BY-4.0", [{"name": "A. Person"}])
    assert rdf["config"]["bioimageio"]["evaluations"][0]["evaluation_factors"][0] == "all"
    assert window.shape == (1, 1, 256, 256)
    assert labels.shape == (1, 256, 256)
    assert labels.max() > 0
    assert "## Validation" in card
    assert card.startswith("---\nlibrary_name: segbench\n")


def test_every_file_stands_in_the_list_of_checksums(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        listed = dict(line.split("  ")[::-1] for line in archive.read(SUMS).decode().splitlines())
        names = set(archive.namelist()) - {SUMS}
        assert set(listed) == names
        assert all(hashlib.sha256(archive.read(name)).hexdigest() == listed[name] for name in names)


def test_the_same_run_gives_the_same_bytes(package: Path, results: ResultsFolder, tmp_path: Path) -> None:
    again = export_model(results, facts_of(package).run_id, tmp_path / "again.zip", TOLD)
    assert again.path.read_bytes() == package.read_bytes()


def test_the_model_predicts_what_it_says(package: Path) -> None:
    with opened(package) as found:
        result = reproduce_package(found)
    assert result.exact
    assert result.found == result.expected > 0
    assert result.score_apart == 0


def test_a_model_that_predicts_otherwise_is_noticed(package: Path, changed: Callable[..., Path]) -> None:
    with opened(package) as found:
        window = np.array(found.test_input())
    blank = np.zeros_like(window)
    blank[..., :64, :64] = window[..., :64, :64]
    buffer = Path(package.parent / "blank.npy")
    np.save(buffer, blank)
    with opened(changed({TEST_INPUT: buffer.read_bytes()})) as found:
        assert not reproduce_package(found).agrees


def test_it_is_taken_in_elsewhere_and_found_by_its_name(package: Path, tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path / "elsewhere")
    imported, new = import_package(package, out)
    assert new
    assert not import_package(package, out)[1]
    assert [(row["source"], row["name"]) for row in model_rows(out)] == [("imported", imported.facts.name)]
    for text in (imported.facts.name, package):
        assert find_model(text, out).settings == imported.model.settings


def test_another_model_of_that_name_is_not_overwritten(
    changed: Callable[..., Path], package: Path, tmp_path: Path
) -> None:
    out = ResultsFolder(tmp_path / "elsewhere")
    import_package(package, out)
    with pytest.raises(SegbenchError, match="has another model"):
        import_package(changed({"more.txt": b"x"}), out)


def test_a_models_list_has_those_of_its_runs(results: ResultsFolder) -> None:
    rows = {row["method"]: row for row in model_rows(results)}
    assert set(rows) == {"threshold", "watershed"}
    assert rows["threshold"]["megabytes"] > 0
    assert rows["watershed"]["accuracy"] > 0


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil.txt"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"model/value.npy": pickle.dumps(_Runs())}, "bare pickle"),
        ({"model/more.py": b"import os"}, "may run code"),
        ({DESCRIPTION: b"{}"}, "describes no model"),
        ({FACTS: b"{}"}, "does not tell of a model"),
        ({FACTS: b'{"name": "../../x"}'}, "does not tell of a model"),
    ],
)
def test_a_hostile_package_is_refused_and_leaves_nothing(
    changed: Callable[..., Path], files: dict[str, bytes], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ResultsFolder(tmp_path / "elsewhere")
    with pytest.raises(SegbenchError) as caught:
        import_package(changed(files), out)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((out.path / "models").glob("*")) == []
    assert not (tmp_path / "evil.txt").exists()


def test_a_setting_that_names_a_file_of_this_machine_is_refused(
    changed: Callable[..., Path], package: Path, tmp_path: Path
) -> None:
    with opened(package) as found:
        raw = json.loads((found.folder / DESCRIPTION).read_text())
    if raw["method"] != "threshold":
        pytest.skip("the watershed has no setting of text")
    for value, words in (("/etc/passwd", "outside the package"), ("package:../x", "not in the package")):
        raw["settings"]["obstacle"] = value
        with pytest.raises(SegbenchError, match=words):
            import_package(changed({DESCRIPTION: json.dumps(raw).encode()}), ResultsFolder(tmp_path / "elsewhere"))


def test_a_truncated_package_is_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(package.read_bytes()[:-100])
    with pytest.raises(SegbenchError, match="damaged or cut off"):
        import_package(tmp_path / "cut.zip", ResultsFolder(tmp_path / "elsewhere"))


def test_what_nobody_told_is_told_as_missing(results: ResultsFolder, tmp_path: Path) -> None:
    done = export_model(results, _run(results, "watershed"), tmp_path)
    assert [note.partition(":")[0] for note in done.notes] == ["no --licence", "no --data-licence", "no --author"]
    assert done.facts.licence is None
    with opened(done.path) as found:
        assert "license" not in yaml.safe_load((found.folder / RDF).read_text())
        assert (found.folder / EXPECTED / "predictions.json").is_file()
