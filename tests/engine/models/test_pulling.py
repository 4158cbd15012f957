"""A package is fetched by a gallery's index, from a folder or a server, goes on where it broke off, and is checked."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from segbench.engine.models.pulling import Gallery
from segbench.errors import SegbenchError

CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a gallery's folder with one package of five megabytes."""
    folder = tmp_path / "site"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages/nuclei.zip").write_bytes(CONTENT)
    _index(folder, source="packages/nuclei.zip", sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
    return folder


def _index(folder: Path, name: str = "nuclei", **version: object) -> None:
    item = {"id": name, "type": "model", "versions": [{"version": "1", **version}]}
    (folder / "index.json").write_text(json.dumps({"items": [item], "total": 1}))


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves files; breaks off after some bytes where told to, and knows ranges where told to."""

    ranges, breaks_after = True, 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send a file or the rest of it."""
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.server.asked.append(wanted)  # type: ignore[attr-defined]
        stop = self.server.breaks_after or len(content)  # type: ignore[attr-defined]
        self.wfile.write(content[start:stop])


@pytest.fixture
def server(site: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """Return a server of the gallery."""
    handler = functools.partial(_Server, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked, server.breaks_after = [], 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _address(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize("ending", ["", "/", "/index.json"])
def test_a_package_comes_from_a_folder(site: Path, tmp_path: Path, ending: str) -> None:
    path = Gallery(f"{site}{ending}").pull("nuclei", tmp_path / "here")
    assert path == tmp_path / "here/nuclei.zip"
    assert path.read_bytes() == CONTENT
    assert Gallery(str(site)).pull("nuclei", tmp_path / "here") == path


def test_a_package_comes_from_a_server(server: http.server.ThreadingHTTPServer, tmp_path: Path) -> None:
    told: list[str] = []
    assert Gallery(_address(server)).pull("nuclei", tmp_path / "n.zip", told.append).read_bytes() == CONTENT
    assert told[-1] == "5.1 of 5.1 MB"


@pytest.mark.parametrize("ranges", [True, False])
def test_what_broke_off_goes_on(
    server: http.server.ThreadingHTTPServer, tmp_path: Path, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Server, "ranges", ranges)
    gallery = Gallery(_address(server))
    server.breaks_after = 3_000_000  # type: ignore[attr-defined]
    with pytest.raises(SegbenchError, match=r"broke off.*goes on from there"):
        gallery.pull("nuclei", tmp_path)
    assert 0 < (tmp_path / "nuclei.zip.part").stat().st_size <= 3_000_000
    server.breaks_after = 0  # type: ignore[attr-defined]
    assert gallery.pull("nuclei", tmp_path).read_bytes() == CONTENT
    assert server.asked[2].startswith("bytes=")  # type: ignore[attr-defined]
    assert not (tmp_path / "nuclei.zip.part").exists()


def test_a_wrong_checksum_leaves_nothing(site: Path, tmp_path: Path) -> None:
    _index(site, source="packages/nuclei.zip", sha256="0" * 64, size_bytes=len(CONTENT))
    with pytest.raises(SegbenchError, match="the index says 0000"):
        Gallery(str(site)).pull("nuclei", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_file_larger_than_it_says_is_not_kept(site: Path, tmp_path: Path) -> None:
    _index(site, source="packages/nuclei.zip", sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=1000)
    with pytest.raises(SegbenchError, match="larger than the 1,000 bytes"):
        Gallery(str(site)).pull("nuclei", tmp_path / "here")
    assert list((tmp_path / "here").iterdir()) == []


def test_another_file_of_the_name_is_not_overwritten(site: Path, tmp_path: Path) -> None:
    (tmp_path / "nuclei.zip").write_text("mine")
    with pytest.raises(SegbenchError, match="is not the gallery's nuclei"):
        Gallery(str(site)).pull("nuclei", tmp_path)
    assert (tmp_path / "nuclei.zip").read_text() == "mine"


@pytest.mark.parametrize("source", ["/etc/passwd", "../secret", "a/../../b", "file:///etc/passwd", "a\\b"])
def test_an_index_leads_to_nothing_outside_its_gallery(site: Path, tmp_path: Path, source: str) -> None:
    _index(site, source=source, sha256="0" * 64)
    with pytest.raises(SegbenchError, match="the index names"):
        Gallery(str(site)).pull("nuclei", tmp_path)


def test_what_is_no_gallery_is_told_in_one_line(site: Path, tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="cannot read"):
        Gallery(str(tmp_path / "nowhere"))
    with pytest.raises(SegbenchError, match="did you mean nuclei"):
        Gallery(str(site)).find("nucleus")
    for text in ("[]", "{}", "not json", "[" * 100_000):
        (site / "index.json").write_text(text)
        with pytest.raises(SegbenchError, match="is no index of a gallery"):
            Gallery(str(site))
    _index(site, name="../../evil", source="packages/nuclei.zip", sha256="0" * 64)
    assert Gallery(str(site)).models == {}
