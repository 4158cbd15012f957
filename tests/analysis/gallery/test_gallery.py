"""A gallery is written of packages: pages, pictures, an index for programs; what is no package is told and left out."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from gallery_samples import facts_for, make_package

from segbench.analysis.gallery.site import build_gallery
from segbench.engine.files.archives import file_sha256
from segbench.errors import SegbenchError


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return twelve packages."""
    return [make_package(tmp_path_factory.mktemp("packages"), number) for number in range(12)]


@pytest.fixture(scope="module")
def site(packages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return their gallery."""
    folder = tmp_path_factory.mktemp("gallery") / "site"
    built = build_gallery(packages, folder, "Ours")
    assert (built.models, built.problems) == (12, ())
    return folder


def test_every_link_and_picture_of_every_page_is_there(site: Path) -> None:
    pages = [site / "index.html", *(site / "model").glob("*.html")]
    assert len(pages) == 13
    for page in pages:
        links = re.findall(r'(?:href|src)="([^"#]+)"', page.read_text())
        inside = [link for link in links if not link.startswith("https://example.org")]
        assert inside
        assert [link for link in inside if not (page.parent / html.unescape(link)).is_file()] == []


def test_the_index_has_the_form_of_bioimageios(site: Path, packages: list[Path]) -> None:
    index = json.loads((site / "index.json").read_text())
    assert index["total"] == len(index["items"]) == index["count_per_type"]["model"] == 12
    by_name = {path.stem: path for path in packages}
    for item in index["items"]:
        (version,) = item["versions"]
        assert version["sha256"] == file_sha256(site / version["source"]) == file_sha256(by_name[item["id"]])
        assert item["type"] == "model"
    tasks = [(item["task"], -item["accuracy"]) for item in index["items"]]
    assert tasks == sorted(tasks)


def test_a_page_tells_scores_licences_and_the_command(site: Path) -> None:
    facts = facts_for(1)
    page = (site / "model" / f"{facts.name}.html").read_text()
    assert f"segbench models apply {facts.name}.zip IMAGES --to cells" in page
    assert facts.pooled is not None
    for text in (f"{facts.pooled.accuracy:.3f}", "CC-BY-4.0", "CC-BY-NC-4.0", "A. Person", "Somebody et al."):
        assert text in page


def test_texts_of_a_package_stay_texts(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    package = make_package(
        tmp_path, 1, title=evil, method_title=evil, licence=evil, authors=(evil,), url="javascript:alert(1)"
    )
    build_gallery([package], tmp_path / "site", evil)
    for page in (tmp_path / "site").rglob("*.html"):
        assert "<script>alert" not in page.read_text()
        assert 'href="javascript:' not in page.read_text()


def test_a_gallery_of_138_is_below_two_megabytes(tmp_path: Path) -> None:
    packages = [make_package(tmp_path / "packages", number) for number in range(138)]
    built = build_gallery(packages, tmp_path / "site")
    assert built.models == 138
    measured = sum(path.stat().st_size for path in (tmp_path / "site").rglob("*") if path.suffix not in (".zip", ""))
    assert measured < 2e6
    assert built.site_bytes < 2e6


def test_what_is_no_package_is_told_and_the_others_are_shown(packages: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(packages[0].read_bytes()[:200])
    again = make_package(tmp_path, 1, title="another of the same name")
    built = build_gallery([*packages, tmp_path / "cut.zip", again], tmp_path / "site")
    assert built.models == 12
    assert "cut.zip is not a whole zip archive" in built.problems[0]
    assert "another model of the name" in built.problems[1]
    with pytest.raises(SegbenchError, match="damaged or cut off"):
        build_gallery([tmp_path / "cut.zip"], tmp_path / "other")


def test_a_second_build_takes_away_what_is_gone_and_nothing_of_others(packages: list[Path], tmp_path: Path) -> None:
    build_gallery(packages[:3], tmp_path / "site")
    build_gallery(packages[:1], tmp_path / "site")
    assert [path.stem for path in (tmp_path / "site/model").iterdir()] == [packages[0].stem]
    assert [path.stem for path in (tmp_path / "site/packages").iterdir()] == [packages[0].stem]
    assert all(path.is_file() for path in packages)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(SegbenchError, match="no gallery"):
        build_gallery(packages, tmp_path / "mine")
