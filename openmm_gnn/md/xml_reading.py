"""What OpenMM's XML reader needs for a System that holds a force of ours, loaded when such a System is read.

OpenMM knows a TorchForce only once its plugin is loaded, which needs PyTorch's libraries; the plugin loads its module
only where our operators are known. A script that reads a System should not have to know either. So `import openmm_gnn`
puts a look at the XML in front of `openmm.XmlSerializer`, which also serves pickle and copy, now or when OpenMM is
imported. What a PythonForce needs, its callable loads itself.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_READERS = ("deserializeSystem", "_deserializeForce")
"""Functions of `openmm.XmlSerializer` by which it reads all that may hold a Force."""


def prepare_xml_reader() -> None:
    """Have OpenMM load what a TorchForce needs before it reads one; OpenMM itself is not imported."""
    if "openmm" in sys.modules:
        _prepare(sys.modules["openmm"])
    else:
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder):
    """Prepares OpenMM when it is imported, and then goes."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "openmm":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_prepare(module: ModuleType) -> None:
                execute(module)
                _prepare(module)

            spec.loader.exec_module = execute_and_prepare  # type: ignore[method-assign]
        return spec


def _prepare(openmm: ModuleType) -> None:
    reader = getattr(openmm, "XmlSerializer", None)
    for name in _READERS:
        read = getattr(reader, name, None)
        if read is not None and not hasattr(read, "openmm_gnn"):
            setattr(reader, name, staticmethod(_after_loading(read)))


def _after_loading(read: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(read)
    def read_prepared(text: str) -> Any:
        if isinstance(text, str) and 'type="TorchForce"' in text:
            from openmm_gnn.md.torch_plugin import get_ready

            get_ready()
        return read(text)

    read_prepared.openmm_gnn = True  # type: ignore[attr-defined]
    return read_prepared
