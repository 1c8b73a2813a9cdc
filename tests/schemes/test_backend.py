"""Both backends answer to the same calls."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from qsci_plugins.errors import UserError
from qsci_plugins.schemes.backend import BACKENDS, Backend, load_backend


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("function", ["apply", "quantize", "save", "load"])
def test_a_backend_has_the_protocol_s_functions(name: str, function: str) -> None:
    asked = inspect.signature(getattr(Backend, function))
    given = inspect.signature(getattr(load_backend(name), function))
    assert [*given.parameters.values()] == [*asked.parameters.values()][1:]  # self
    assert given.return_annotation == asked.return_annotation


def test_a_backend_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"backend: there is no 'tflite'; choose brevitas or nncf"):
        load_backend("tflite")


def test_a_framework_is_imported_with_its_backend_alone() -> None:
    program = "import sys, qsci_plugins.schemes.backend; assert not {'nncf', 'brevitas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
