"""An archive of anyone's is unpacked whole and as it says, or refused in one line with nothing written."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from segbench.engine.files.archives import SUMS, Limits, file_sha256, read_member, unpack, write_archive
from segbench.errors import SegbenchError


def _zip(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], *, sums: bool = True) -> Path:
    listed = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name if isinstance(name, str) else name.filename}\n"
        for name, content in entries
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
        if sums:
            archive.writestr(SUMS, listed)
    return path


def _link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


def _refused(path: Path, wanted: str, limits: Limits | None = None) -> None:
    """Unpack beside the archive, and find the one line and nothing else."""
    before = sorted(each.name for each in path.parent.iterdir())
    with pytest.raises(SegbenchError) as caught:
        unpack(path, path.parent / "out", limits)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(each.name for each in path.parent.iterdir()) == before
    assert not (path.parent.parent / "evil.txt").exists()


def test_what_is_written_is_unpacked_again(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 100)
    files = {"a.txt": b"hello", "deep/er/b.bin": tmp_path / "weights"}
    digest = write_archive(tmp_path / "one.zip", files)
    found = unpack(tmp_path / "one.zip", tmp_path / "out")
    assert digest == file_sha256(tmp_path / "one.zip")
    assert (tmp_path / "out/a.txt").read_bytes() == b"hello"
    assert (tmp_path / "out/deep/er/b.bin").read_bytes() == (tmp_path / "weights").read_bytes()
    assert found["deep/er/b.bin"] == file_sha256(tmp_path / "weights")
    assert read_member(tmp_path / "one.zip", "a.txt") == b"hello"


def test_the_same_files_give_the_same_bytes_whatever_their_order_and_age(tmp_path: Path) -> None:
    import os

    (tmp_path / "w").write_bytes(b"1")
    first = write_archive(tmp_path / "one.zip", {"a": b"x", "b": tmp_path / "w"})
    os.utime(tmp_path / "w", (0, 1_000_000_000))
    (tmp_path / "w").chmod(0o600)
    assert write_archive(tmp_path / "two.zip", {"b": tmp_path / "w", "a": b"x"}) == first


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("../evil.txt", "leads out"),
        ("a/../../evil.txt", "leads out"),
        ("/evil.txt", "leads out"),
        ("C:\\evil.txt", "no file's name"),
        ("a\\..\\evil.txt", "no file's name"),
        ("a\nb", "no file's name"),
        ("./a", "not that of a file"),
        ("a//b", "not that of a file"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str, wanted: str) -> None:
    (tmp_path / "in").mkdir()
    _refused(_zip(tmp_path / "in/x.zip", [(name, b"x")]), wanted)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    _refused(_zip(tmp_path / "x.zip", [(_link("passwd"), b"/etc/passwd")]), "a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    _refused(_zip(tmp_path / "x.zip", [("a", b"1"), ("a", b"2")]), "two entries")
    _refused(_zip(tmp_path / "x.zip", [("a", b"1"), ("A", b"2")]), "two entries")
    _refused(_zip(tmp_path / "x.zip", [("a", b"1"), ("a/b", b"2")]), "a file and a folder")


def test_an_archive_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    bomb = _zip(tmp_path / "x.zip", [("a", bytes(10**6))])
    _refused(bomb, "claims to unpack to", Limits(total_bytes=10**5))
    _refused(bomb, "a thousand times", Limits(ratio=100))
    _refused(_zip(tmp_path / "x.zip", [(str(n), b"") for n in range(20)]), "21 files", Limits(files=20))


def test_an_archive_that_holds_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", [("a", bytes(100_000))])
    content = bytearray(path.read_bytes())
    # both headers say 10 bytes instead of 100,000
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + at, 10)
    path.write_bytes(content)
    _refused(path, "damaged or cut off")


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", [("a", b"secret")])
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)
    _refused(path, "encrypted")


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    _refused(tmp_path / "x.zip", "packed in a way")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = _zip(tmp_path / "x.zip", [("a", bytes(range(256)) * 50)]).read_bytes()
    (tmp_path / "x.zip").write_bytes(whole[: int(len(whole) * share)])
    _refused(tmp_path / "x.zip", "damaged or cut off")


def test_a_flipped_bit_is_noticed_wherever_it_lies(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"weights")
        archive.writestr(SUMS, f"{hashlib.sha256(b'weights').hexdigest()}  a\n")
    path = tmp_path / "x.zip"
    content = bytearray(buffer.getvalue())
    content[content.index(b"weights")] ^= 1
    path.write_bytes(content)
    _refused(path, "damaged or cut off")


def test_files_that_differ_from_the_list_of_checksums_are_refused(tmp_path: Path) -> None:
    good = hashlib.sha256(b"x").hexdigest()

    def with_sums(sums: str, *names: str) -> Path:
        return _zip(tmp_path / "x.zip", [*((name, b"x") for name in names), (SUMS, sums.encode())], sums=False)

    _refused(with_sums(f"{'0' * 64}  a\n", "a"), "the checksum of 'a' is wrong")
    _refused(with_sums(f"{good}  a\n", "a", "b"), "'b' is not on its list")
    _refused(with_sums(f"{good}  a\n{good}  c\n", "a"), "'c' is on its list")
    _refused(with_sums("rubbish\n", "a"), "no checksum")
    _refused(_zip(tmp_path / "x.zip", [("a", b"x")], sums=False), f"no {SUMS}")


def test_nothing_is_unpacked_over_a_folder(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.zip", {"a": b"1"})
    (tmp_path / "out").mkdir()
    with pytest.raises(SegbenchError, match="is there already"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_what_is_no_archive_or_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="cannot read"):
        read_member(tmp_path / "none.zip", "a")
    write_archive(tmp_path / "x.zip", {"a": b"1"})
    with pytest.raises(SegbenchError, match="holds no b"):
        read_member(tmp_path / "x.zip", "b")
