"""Every method of the registry has its file, which keeps to the interface."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from openmm_gnn.kinetics.methods.interface import MethodFile, method_file
from openmm_gnn.kinetics.settings import Method


@pytest.mark.parametrize("method", list(Method), ids=lambda method: method.value)
def test_a_method_is_a_file_of_the_interface(method: Method) -> None:
    file = method_file(method)
    assert isinstance(file.TITLE, str) and inspect.getdoc(file.fit)
    assert get_type_hints(file.fit) == get_type_hints(MethodFile.fit)
