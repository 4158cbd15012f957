"""Run by the torch environment's Python: prints the largest difference of any parameter between two saved models.

python difference.py A/weights.pth B/weights.pth
"""

from __future__ import annotations

import sys

import torch


def main(a: str, b: str) -> None:
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (a, b))
    assert first.keys() == second.keys()
    # what is no parameter (a table of indices) is a whole number
    keys = [key for key, value in first.items() if value.is_floating_point() and value.numel()]
    sys.stdout.write(str(max(float((first[key] - second[key]).abs().max()) for key in keys)))


if __name__ == "__main__":
    main(*sys.argv[1:])
