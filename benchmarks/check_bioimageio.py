"""Lets bioimage.io's own core run packages, and compares what it finds with what they expect.

Run ``python benchmarks/check_bioimageio.py PACKAGE ...`` on packages of ``segbench models export``, such as those that
``check_packages.py`` leaves. The core lies in an environment of its own, built where it is not there (``--core``), for
it needs another pydantic than segbench; each package is run by the Python of its method's environment, with the core
behind it, so that the libraries are those of the method. A row a package is printed. The status is 1 where one fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import segbench
from segbench.engine.grid.cards import get_card
from segbench.engine.models.facts import ModelFacts
from segbench.engine.models.packages import FACTS, read_member
from segbench.engine.run import environments
from segbench.engine.run.environments import ENGINE
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

# scikit-image for the watershed, whose own environment is segbench's, which has no PyTorch
WANTED = ("bioimageio.core==0.11.0", "pydantic<2.12", "scikit-image")
_TEST = """
import json, sys
core, package, modules = sys.argv[1:]
sys.path += [core, modules]
import numpy as np
from bioimageio.core import __version__, test_model
from bioimageio.core.digest_spec import get_test_output_sample
from bioimageio.spec import load_model_description
told = {"core": __version__, "formats": {}}
described = load_model_description(package)
(expected,) = get_test_output_sample(described).members.values()
told["cells"] = int(len(np.unique(expected.to_numpy())) - 1)
for name in described.weights.available_formats:
    found = test_model(described, weight_format=name, stop_early=False)
    wrong = [error.msg for detail in found.details for error in detail.errors]
    told["formats"][name] = {"status": found.status, "errors": wrong}
print("TOLD " + json.dumps(told))
"""


def core_in(folder: Path) -> Path:
    """Return where the core's modules lie, after building their environment where it is not there."""
    found = sorted(folder.glob("lib/python*/site-packages/bioimageio"))
    if not found:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *WANTED], check=True)
        found = sorted(folder.glob("lib/python*/site-packages/bioimageio"))
    return found[0].parent


def check(package: Path, core: Path) -> dict[str, Any]:
    """Return the row of a package."""
    method = ModelFacts.read(read_member(package, FACTS), str(package)).method
    needed = get_card(method).environment
    environment = environments.ensure("torch" if needed == ENGINE else needed, gpu=False)
    variables = environments.subprocess_env(environment) | {"CUDA_VISIBLE_DEVICES": ""}
    modules = str(Path(segbench.__file__).parent.parent)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="core-") as folder:  # it unpacks weights into the working folder
        done = subprocess.run(
            [str(environment.python), "-c", _TEST, str(core), str(package.absolute()), modules],
            env=variables, capture_output=True, text=True, check=False, cwd=folder,
        )  # fmt: skip
    told = next((line[5:] for line in done.stdout.splitlines() if line.startswith("TOLD ")), None)
    row = {"method": method, "package": package.name, "seconds": round(time.monotonic() - began, 1)}
    if told is None:
        return {**row, "formats": {}, "error": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return {**row, **json.loads(told)}


def main() -> None:
    """Check the packages that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="+", type=Path, metavar="PACKAGE")
    parser.add_argument("--core", type=Path, default=cache_folder() / "bioimageio-core", help="the core's environment")
    given = parser.parse_args()
    core, failed = core_in(given.core), False
    for package in given.packages:
        try:
            row = check(package, core)
        except SegbenchError as error:
            row = {"package": package.name, "formats": {}, "error": str(error)}
        formats = row["formats"].values()
        failed |= not formats or any(one["status"] != "passed" for one in formats)
        print(json.dumps(row), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
