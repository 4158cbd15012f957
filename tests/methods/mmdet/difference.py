"""Run by the torch environment's Python: prints the largest difference of any parameter between saved models.

python difference.py A/weights.pth B/weights.pth C/weights.pth: between A and B, and between A and C, as JSON
"""

from __future__ import annotations

import json
import sys

import torch


def main(a: str, *others: str) -> None:
    first, *rest = (torch.load(path, weights_only=True)["state_dict"] for path in (a, *others))
    # what is no parameter (a table of indices) is a whole number
    keys = [key for key, value in first.items() if value.is_floating_point() and value.numel()]
    differences = []
    for other in rest:
        assert first.keys() == other.keys()
        differences.append(max(float((first[key] - other[key]).abs().max()) for key in keys))
    sys.stdout.write(json.dumps(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
