"""Graph neural networks as forces in OpenMM: neighbour pairs, GAMD, and the Force that carries it.

Names are imported when first used, so `import openmm_gnn` is instant, prints nothing and touches no device. Their table
is `__init__.pyi`. OpenMM's XML reader then loads what a System with our forces needs (md/xml_reading.py).
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from openmm_gnn.md.xml_reading import prepare_xml_reader

_TABLE = Path(__file__).with_suffix(".pyi").read_text()
_HOME_OF = {name: home for home, name in re.findall(r"^from (\S+) import (\w+) as", _TABLE, flags=re.MULTILINE)}
__all__ = sorted([*_HOME_OF, "__version__"])
prepare_xml_reader()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("openmm-gnn")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'openmm_gnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
