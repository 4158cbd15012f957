"""Cellpose: the classic flow-field network (CPnet), trained from scratch by the upstream library."""

from __future__ import annotations

from segbench.methods.card import Budget, Card, Resources
from segbench.methods.published import SCRIPTS, usability

CARD = Card(
    name="cellpose",
    title="Cellpose",
    family="cellpose",
    environment="cellpose",
    category="cell-specific",
    trained=True,
    attention=False,
    budget=Budget(
        batch_size=8,
        epochs=500,
        note=f"paper: version 1.0.2 on 1 GPU, epochs and batch not stated; {SCRIPTS}: 500 epochs, batch 8 (library "
        "defaults of its 2.x line)",
    ),
    resources=Resources(num_gpus=1, num_cpus=1, memory_gb=4),
    usability=usability(0.67),
    libraries=("cellpose", "torch"),
    implemented=False,
)
