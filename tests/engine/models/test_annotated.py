"""The table of cells as AnnData: read by its own library, in an environment that has it; told where it is missing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from typer.testing import CliRunner

import segbench
from segbench.cli.app import app
from segbench.errors import SegbenchError

_WRITE_AND_READ = """
import json, sys
from pathlib import Path
import anndata, numpy as np, polars as pl
from segbench.engine.models.outputs import Result, missing_for, write_result
folder = Path(sys.argv[1])
labels = np.zeros((30, 40), np.int32)
labels[2:8, 3:9], labels[20:30, 10:20] = 1, 2
pixels = np.stack([labels * 10, labels + 1]).astype(np.uint16)
for name, size, channels in (("known", 0.5, ("DAPI", "CD3")), ("unknown", None, None)):
    result = Result(Path("a.tif"), labels, np.array([0.9, 0.5]), pixels, channels, pixel_size_um=size)
    write_result(result, ("anndata", "table"), name, folder, folder / "part")
none = Result(Path("a.tif"), labels * 0, np.zeros(0), pixels)
write_result(none, ("anndata",), "none", folder, folder / "part")
known, unknown, empty = (anndata.read_h5ad(folder / f"{name}.cells.h5ad") for name in ("known", "unknown", "none"))
table = pl.read_parquet(folder / "known.cells.parquet")
same = [np.array_equal(known.obs[name], table[name]) for name in table.columns if name in known.obs]
print(json.dumps({
    "missing": missing_for("anndata"), "same": same, "channels": list(known.var_names), "means": known.X.tolist(),
    "places": known.obsm["spatial"].tolist(), "attrs": dict(known.uns["spatialdata_attrs"]),
    "region": sorted(set(known.obs["region"])), "dtype": str(known.obs["region"].dtype),
    "numbers": list(unknown.var_names), "pixels": unknown.obsm["spatial"].tolist(),
    "no micrometres": [name for name in unknown.obs if name.endswith(("um", "um2"))], "empty": list(empty.shape),
}))
"""


@pytest.mark.heavy
def test_the_table_is_read_by_anndata_itself(tmp_path: Path) -> None:
    uv, environment = [sys.executable, "-m", "uv"], tmp_path / "environment"
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = environment / "bin/python"
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), "anndata>=0.12"], check=True)
    # behind it what segbench itself needs
    (modules,) = environment.glob("lib/python*/site-packages")
    paths = sysconfig.get_path("purelib"), str(Path(segbench.__file__).parents[1])
    (modules / "engine.pth").write_text("\n".join(paths))
    done = subprocess.run(
        [str(python), "-c", _WRITE_AND_READ, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["missing"] is None
    assert len(told["same"]) > 10
    assert all(told["same"])
    assert (told["channels"], told["numbers"]) == (["DAPI", "CD3"], ["1", "2"])
    assert told["means"] == [[10.0, 2.0], [20.0, 3.0]]
    assert told["places"] == [[2.75, 2.25], [7.25, 12.25]]
    assert told["pixels"] == [[5.5, 4.5], [14.5, 24.5]]
    assert told["attrs"] == {"region": "known.labels", "region_key": "region", "instance_key": "label"}
    assert (told["region"], told["dtype"]) == (["known.labels"], "category")
    assert told["no micrometres"] == []
    assert told["empty"] == [0, 2]


def test_a_form_whose_library_is_missing_is_one_line_before_any_image_is_read(tmp_path: Path) -> None:
    assert importlib.util.find_spec("anndata") is None
    arguments = ["models", "apply", "abc", "x.tif", "--to", str(tmp_path / "to"), "--write", "table,anndata"]
    with pytest.raises(SegbenchError, match=r"--write anndata: .* pip install 'segbench\[spatial\]'"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "to").exists()
