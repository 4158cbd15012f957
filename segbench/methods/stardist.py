"""StarDist: star-convex polygons from a U-Net, trained from scratch by the upstream library."""

from __future__ import annotations

from segbench.methods.card import Budget, Card, Resources
from segbench.methods.published import SCRIPTS, usability

CARD = Card(
    name="stardist",
    title="StarDist",
    family="stardist",
    environment="tensorflow",
    category="cell-specific",
    trained=True,
    attention=False,
    budget=Budget(
        batch_size=4,
        epochs=100,
        steps_per_epoch=100,
        note=f"paper: 100 epochs, batch not stated, 1 GPU; {SCRIPTS}: 500 epochs, batch 4 and 100 steps an epoch (library "
        "defaults; their --batch-size 16 is parsed but not used)",
    ),
    resources=Resources(num_gpus=1, num_cpus=1, memory_gb=3),
    usability=usability(0.59),
    libraries=("stardist", "csbdeep", "tensorflow"),
    implemented=False,
)
