"""A picture file gives the pixels of that file, each axis for what it is, or one line that names it."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segbench.engine.files.picture import Picture, Take
from segbench.engine.files.pictures import read_numbers, read_picture
from segbench.errors import SegbenchError


def pixels(*shape: int, dtype: Any = np.uint16, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def written(path: Path, array: Any, **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def ome_set(folder: Path, n: int = 3) -> list[tuple[Path, Any]]:
    """Write the positions of one acquisition, each file's description naming all of them."""
    ids = [f"urn:uuid:{uuid.UUID(int=k + 1)}" for k in range(n)]
    names = [f"run_Pos{k}.ome.tif" for k in range(n)]
    images = "".join(
        f'<Image ID="Image:{k}"><Pixels ID="Pixels:{k}" DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
        f'SizeC="1" SizeZ="1" SizeT="1"><TiffData IFD="0" PlaneCount="1"><UUID FileName="{names[k]}">{ids[k]}</UUID>'
        f"</TiffData></Pixels></Image>"
        for k in range(n)
    )
    files = []
    for k in range(n):
        array = pixels(40, 50, seed=k)
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[k]}">{images}</OME>'
        files.append((written(folder / names[k], array, description=xml, metadata=None), array))
    return files


class TestTiff:
    def test_a_file_of_an_ome_set_gives_its_own_pixels(self, tmp_path: Path) -> None:
        for path, array in ome_set(tmp_path):
            assert np.array_equal(read_picture(path).pixels[0], array)
            assert np.array_equal(read_numbers(path), array)

    def test_the_others_of_a_set_need_not_be_there(self, tmp_path: Path) -> None:
        (first, array), *others = ome_set(tmp_path)
        for path, _ in others:
            path.unlink()
        assert np.array_equal(read_picture(first.rename(tmp_path / "renamed.tif")).pixels[0], array)

    @pytest.mark.parametrize(
        "options", [{"metadata": {"axes": "ZYX"}, "ome": True}, {"imagej": True, "metadata": {"axes": "ZYX"}}]
    )
    def test_depth_is_refused_unless_one_plane_is_chosen(self, tmp_path: Path, options: dict[str, Any]) -> None:
        array = pixels(3, 40, 50)
        path = written(tmp_path / "z.tif", array, **options)
        with pytest.raises(
            SegbenchError, match=r"z.tif has an axis Z \(depth\) of 3 planes.*--plane Z=0.*--project max"
        ):
            read_picture(path)
        with pytest.raises(SegbenchError, match="axis Z"):
            read_numbers(path)
        assert np.array_equal(read_picture(path, Take("max")).pixels[0], array.max(axis=0))
        assert np.array_equal(read_picture(path, Take(None, {"Z": 2})).pixels[0], array[2])
        assert np.array_equal(read_picture(path, None, named=3).pixels, array)
        with pytest.raises(SegbenchError, match="Z goes from 0 to 2"):
            read_picture(path, Take(None, {"Z": 3}))

    def test_time_is_an_axis_too(self, tmp_path: Path) -> None:
        path = written(tmp_path / "t.ome.tif", pixels(4, 40, 50), metadata={"axes": "TYX"})
        with pytest.raises(SegbenchError, match=r"T \(time\) of 4"):
            read_picture(path)

    def test_ome_tells_channels_and_pixel_size(self, tmp_path: Path) -> None:
        metadata = {
            "axes": "CYX",
            "Channel": {"Name": ["DAPI", "E-cadherin"]},
            "PhysicalSizeX": 500,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 500,
            "PhysicalSizeYUnit": "nm",
        }
        array = pixels(2, 40, 50)
        found = read_picture(written(tmp_path / "c.ome.tif", array, metadata=metadata))
        assert np.array_equal(found.pixels, array)
        assert (found.channels, found.pixel_size_um) == (("DAPI", "E-cadherin"), 0.5)

    def test_imagej_tells_its_pixel_size(self, tmp_path: Path) -> None:
        path = written(tmp_path / "ij.tif", pixels(40, 50), imagej=True, resolution=(4, 4), metadata={"unit": "um"})
        assert read_picture(path).pixel_size_um == 0.25

    def test_pages_written_one_by_one_are_all_read(self, tmp_path: Path) -> None:
        array = pixels(4, 40, 50)
        with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
            for page in array:
                file.write(page)
        assert np.array_equal(read_numbers(tmp_path / "pages.tif"), array)
        assert np.array_equal(read_picture(tmp_path / "pages.tif").pixels, array)

    @pytest.mark.parametrize("other", [pixels(30, 50), pixels(40, 50, dtype=np.uint8)])
    def test_pages_of_different_kinds_are_refused(self, tmp_path: Path, other: Any) -> None:
        with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
            file.write(pixels(40, 50))
            file.write(other)
        with pytest.raises(SegbenchError, match=r"mixed.tif holds 2 images of different kinds"):
            read_picture(tmp_path / "mixed.tif")

    def test_a_pyramid_gives_its_full_resolution(self, tmp_path: Path) -> None:
        array = pixels(256, 256)
        with tifffile.TiffWriter(tmp_path / "sub.ome.tif") as file:
            file.write(array, subifds=1, tile=(64, 64))
            file.write(array[::2, ::2], subfiletype=1, tile=(64, 64))
        with tifffile.TiffWriter(tmp_path / "flat.tif") as file:
            file.write(array, metadata=None)
            file.write(array[::2, ::2], subfiletype=1, metadata=None)
        for name in ("sub.ome.tif", "flat.tif"):
            assert np.array_equal(read_picture(tmp_path / name).pixels[0], array)

    def test_only_a_sample_that_the_tag_calls_alpha_is_left_out(self, tmp_path: Path) -> None:
        four = pixels(40, 50, 4, dtype=np.uint8)
        alpha = written(tmp_path / "alpha.tif", four, photometric="rgb", extrasamples=["unassalpha"])
        other = written(tmp_path / "other.tif", four, photometric="rgb", extrasamples=["unspecified"])
        assert read_picture(alpha).pixels.shape[0] == 3
        assert read_picture(alpha).notes == ("alpha channel left out",)
        assert read_picture(other).pixels.shape[0] == 4
        two = written(tmp_path / "two.tif", four[..., :2], photometric="minisblack", planarconfig="contig")
        assert read_picture(two).pixels.shape[0] == 2

    def test_photometric_interpretation_is_honoured(self, tmp_path: Path) -> None:
        array = pixels(40, 50, dtype=np.uint8)
        white = written(tmp_path / "white.tif", array, photometric="miniswhite")
        assert np.array_equal(read_picture(white).pixels[0], 255 - array)
        assert np.array_equal(read_numbers(white), array)
        colours = np.stack([np.arange(256), np.arange(256)[::-1], np.zeros(256)]).astype(np.uint16) * 257
        palette = written(tmp_path / "palette.tif", array, photometric="palette", colormap=colours)
        assert np.array_equal(read_picture(palette).pixels, (colours // 257)[:, array])
        assert np.array_equal(read_numbers(palette), array)
        cmyk = written(tmp_path / "cmyk.tif", pixels(40, 50, 4, dtype=np.uint8), photometric="separated")
        with pytest.raises(SegbenchError, match="save it as grey or as red, green and blue"):
            read_picture(cmyk)

    def test_labels_do_not_come_from_a_lossy_compression(self, tmp_path: Path) -> None:
        path = written(tmp_path / "lossy.tif", pixels(64, 64, 3, dtype=np.uint8), photometric="rgb", compression="jpeg")
        with pytest.raises(SegbenchError, match=r"lossy.tif is compressed by JPEG"):
            read_numbers(path)

    def test_a_stack_whose_axis_has_no_name_is_joined_or_taken_apart_as_asked(self, tmp_path: Path) -> None:
        array = pixels(7, 40, 50)
        with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
            for plane in array:
                file.write(plane, metadata=None, contiguous=False)
        written(tmp_path / "shaped.tif", array)
        np.save(tmp_path / "stack.npy", array)
        np.save(tmp_path / "last.npy", np.moveaxis(array, 0, -1))
        for name in ("pages.tif", "shaped.tif", "stack.npy", "last.npy"):
            path = tmp_path / name
            assert np.array_equal(read_picture(path).pixels, array), name
            assert np.array_equal(read_picture(path, Take("max")).pixels, array.max(axis=0)[None]), name
            assert np.array_equal(read_picture(path, Take(None, {"Z": 3})).pixels, array[3:4]), name
            assert np.array_equal(read_picture(path, Take(None, {"T": 0})).pixels, array[:1]), name
            assert np.array_equal(read_picture(path, Take("max"), named=7).pixels, array), name
            with pytest.raises(SegbenchError, match="--plane Z=7, but Z goes from 0 to 6"):
                read_picture(path, Take(None, {"Z": 7}))

    def test_a_plane_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path / "c.ome.tif", pixels(2, 40, 50), metadata={"axes": "CYX"})
        with pytest.raises(SegbenchError, match=r"c.ome.tif has no axis Z: --plane Z=3"):
            read_picture(path, Take(None, {"Z": 3}))
        assert read_picture(path, Take(None, {"Z": 0})).pixels.shape == (2, 40, 50)
        for wrong in (["C=1"], ["Y=3"], ["Z=0", "Z=1"], ["Z"], ["Z=-1"]):
            with pytest.raises(SegbenchError, match="--plane"):
                Take.of(None, wrong)

    def test_label_maps_of_several_times_are_maps_one_after_the_other(self, tmp_path: Path) -> None:
        array = pixels(4, 40, 50)
        assert np.array_equal(read_numbers(written(tmp_path / "t.ome.tif", array, metadata={"axes": "TYX"})), array)


class TestOtherFormats:
    def test_a_colour_picture_is_no_label_map(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(40, 50, 3, dtype=np.uint8)).save(tmp_path / "colour.png")
        written(tmp_path / "colour.tif", pixels(40, 50, 3, dtype=np.uint8), photometric="rgb")
        for name in ("colour.png", "colour.tif"):
            with pytest.raises(SegbenchError, match=rf"{name} is a colour picture.*--masks colour"):
                read_numbers(tmp_path / name)

    def test_a_grey_picture_stored_as_colour_is_one_plane(self, tmp_path: Path) -> None:
        array = pixels(40, 50, dtype=np.uint8)
        Image.fromarray(np.stack([array] * 3, axis=-1)).save(tmp_path / "grey.png")
        assert np.array_equal(read_numbers(tmp_path / "grey.png"), array)

    @pytest.mark.parametrize("suffix", ["jpg", "webp"])
    def test_a_lossy_file_is_no_label_map_whatever_its_name(self, tmp_path: Path, suffix: str) -> None:
        Image.fromarray(pixels(40, 50, dtype=np.uint8)).save(tmp_path / f"mask.{suffix}")
        path = (tmp_path / f"mask.{suffix}").rename(tmp_path / "mask.png")
        with pytest.raises(SegbenchError, match="change"):
            read_numbers(path)

    def test_a_palette_picture_gives_colours_or_indices(self, tmp_path: Path) -> None:
        indices = pixels(40, 50, dtype=np.uint8) % 3
        picture = Image.fromarray(indices, "P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(tmp_path / "p.png")
        assert np.array_equal(read_numbers(tmp_path / "p.png"), indices)
        assert np.array_equal(read_picture(tmp_path / "p.png").pixels[0], np.array([0, 255, 0])[indices])

    def test_what_a_header_claims_beyond_the_memory_is_refused(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", 2_000_000, 2_000_000, 8, 0, 0, 0, 0)
        bomb = tmp_path / "bomb.png"
        bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)))
        for read in (read_picture, read_numbers):
            with pytest.raises(SegbenchError, match=r"bomb.png has 2000000 x 2000000 x 1 pixels, 4e\+03 GB"):
                read(bomb)

    def test_a_picture_of_over_179_megapixels_is_read(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((18_000, 10_000), np.uint8)).save(tmp_path / "big.bmp")
        assert read_picture(tmp_path / "big.bmp").pixels.shape == (1, 18_000, 10_000)

    def test_nothing_is_handed_to_another_program(self, tmp_path: Path) -> None:
        (tmp_path / "drawn.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
        with pytest.raises(SegbenchError, match=r"drawn.png cannot be read: it is no TIFF"):
            read_picture(tmp_path / "drawn.png")

    def test_an_array_of_objects_is_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "o.npy", np.array([{}, 1], object), allow_pickle=True)
        with pytest.raises(SegbenchError, match=r"o.npy cannot be read: it holds Python objects"):
            read_numbers(tmp_path / "o.npy")

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(SegbenchError, match=r"nowhere.tif does not exist"):
            read_picture(tmp_path / "nowhere.tif")


def outcome(read: Callable[[Path], Any], path: Path) -> int | str:
    """Return how many pixels a file has, or the error in which reading it ends."""
    try:
        found = read(path)
    except SegbenchError as error:
        return str(error)
    return int((found.pixels if isinstance(found, Picture) else found).size)


def sound_files(folder: Path) -> list[bytes]:
    written(folder / "a.ome.tif", pixels(2, 20, 30), metadata={"axes": "CYX", "Channel": {"Name": ["a", "b"]}})
    written(folder / "b.tif", pixels(3, 20, 30), imagej=True, compression=None)
    written(folder / "c.tif", pixels(20, 30, dtype=np.uint8), compression="zlib", tile=(16, 16))
    Image.fromarray(pixels(20, 30, dtype=np.uint8)).save(folder / "d.png")
    np.save(folder / "e.npy", pixels(3, 20, 30))
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 4), seed=st.integers(0, 2**32 - 1), damage=st.sampled_from(["flip", "zero", "cut", "insert"])
)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, which: int, seed: int, damage: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        folder.mkdir()
        for n, content in enumerate(sound_files(tmp_path_factory.mktemp("sound"))):
            (folder / f"{n}.bytes").write_bytes(content)
    content = bytearray((folder / f"{which}.bytes").read_bytes())
    rng = np.random.default_rng(seed)
    at = int(rng.integers(0, min(len(content), 600)))
    if damage == "flip":
        content[at] ^= 1 << int(rng.integers(0, 8))
    elif damage == "zero":
        content[at : at + 8] = bytes(8)
    elif damage == "cut":
        del content[at:]
    else:
        content[at:at] = rng.bytes(5)
    path = folder / "damaged.tif"
    path.write_bytes(bytes(content))
    for read in (read_picture, read_numbers):
        found = outcome(read, path)
        if isinstance(found, str):
            assert str(path) in found
            assert "\n" not in found
        else:
            assert found > 0
