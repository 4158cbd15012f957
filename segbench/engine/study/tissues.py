"""The channels, targets and tissues of the two datasets of the published study, and their words."""

from __future__ import annotations

TISSUENET_CHANNELS = ("nuclear", "membrane")
TISSUENET_TARGETS = ("nuclear", "wholecell")
TISSUENET_TISSUES = (
    "Breast",
    "Colon",
    "Epidermis",
    "Esophagus",
    "Lung",
    "Lymph Node",
    "Lymph Node Metastasis",
    "Pancreas",
    "Spleen",
    "Tonsil",
)
LIVECELL_CHANNELS = ("phase",)
LIVECELL_TARGETS = ("wholecell",)
LIVECELL_TISSUES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3")
ALL_TISSUES = "all"
"""The training tissue, and the test tissue, that stands for every tissue of a dataset together."""
