"""Measures COCO JSON files with thousands of cells an image against pycocotools and its public replacements.

    python benchmarks/bench_coco_json.py --peers /tmp/peers/bin/python [--before CHECKOUT]

Everyone begins with the two files and ends with precision and recall: reading, indexing, matching and accumulating. CPU
seconds, single-threaded, medians of alternating processes. The peers' environment: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from coco_export import coco_dataset
from label_map_sets import dense_sized
from peer_evaluators import PEERS

HERE = Path(__file__).parent
_OURS = """
import json, sys, time
from pathlib import Path
from segbench.engine.metrics import evaluate_coco_json
truth, found, small_truth, small_found = map(Path, sys.argv[1:])
evaluate_coco_json(small_truth, small_found, area_ranges={})
start = time.process_time()
result = evaluate_coco_json(truth, found, area_ranges={})
print(json.dumps({"seconds": time.process_time() - start, "map": result.metrics()["map"]}))
"""


def write(folder: Path, images: int) -> tuple[Path, Path]:
    """Write the truth and the results of so many dense images."""
    maps = dense_sized(images)
    truth, results = coco_dataset(maps.truth, maps.predictions, maps.scores)
    paths = folder / f"truth-{images}.json", folder / f"results-{images}.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


def timed(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return what a process prints last."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Print a line for everyone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment with benchmarks/requirements.txt")
    parser.add_argument("--before", type=Path, help="a checkout of segbench to measure beside this one")
    parser.add_argument("--images", type=int, default=10, help="of 1024 x 1024 pixels with 3,000 cells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out; pycocotools takes its time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segbench-coco-json-") as text:
        files, small = write(Path(text), asked.images), write(Path(text), 1)
        states = {"segbench": HERE.parent} | ({"segbench before": asked.before} if asked.before else {})
        everyone: dict[str, tuple[list[str], dict[str, str]]] = {
            name: ([sys.executable, "-c", _OURS, *map(str, files + small)], os.environ | {"PYTHONPATH": str(checkout)})
            for name, checkout in states.items()
        }
        for name in PEERS if asked.peers else ():
            home = PEERS[name][1].split(":")[0]
            if (
                name in asked.without
                or subprocess.run([asked.peers, "-c", f"import {home}"], capture_output=True).returncode
            ):
                print(f"{name} is left out")
                continue
            command = [str(asked.peers), str(HERE / "peer_evaluators.py"), name, "--files", *map(str, files)]
            everyone[name] = (command, dict(os.environ))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in everyone}
        for _ in range(asked.rounds):
            for name, (command, environment) in everyone.items():
                found[name].append(timed(command, environment))
        size = sum(path.stat().st_size for path in files) / 1e6
        seconds = {name: statistics.median(one["seconds"] for one in results) for name, results in found.items()}
        print(f"{asked.images} images with 3,000 cells each, {size:.0f} MB of JSON")
        for name, value in sorted(seconds.items(), key=lambda item: item[1]):
            odd = abs(found[name][0]["map"] - found["segbench"][0]["map"]) > 1e-12
            print(f"{name:24} {value:8.3f} s {value / seconds['segbench']:7.2f} x{'  ANOTHER mAP' if odd else ''}")


if __name__ == "__main__":
    main()
