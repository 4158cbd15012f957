"""Reads JSON that others have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError


def load_json(path: Path) -> Any:
    """Return what a JSON file holds; raise SegbenchError, one line that names it, where it cannot be read."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise SegbenchError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SegbenchError(f"{path} is not JSON: {' '.join(str(error).split())}") from None
    except MemoryError:
        raise SegbenchError(f"{path} needs more memory than there is") from None
