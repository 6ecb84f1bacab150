# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import trulysparse as ts

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("matplotlib", "mpi4py", "torch")
SLOW = ("safetensors", "scipy", "sklearn", "tomli_w", "tqdm")


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_import_loads_nothing_optional_and_nothing_slow() -> None:
    assert _modules_after("import trulysparse").isdisjoint({*OPTIONAL, *SLOW})


def test_every_public_name_loads_nothing_optional() -> None:
    statement = "import trulysparse as ts\nfor name in ts.__all__: getattr(ts, name)"
    assert _modules_after(statement).isdisjoint({*OPTIONAL, *SLOW})


@pytest.mark.parametrize("name", ts.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(ts, name) is not None
    assert name in dir(ts)


def test_lazy_table_and_all_agree() -> None:
    assert sorted([*ts._HOME_OF, "__version__"]) == sorted(ts.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        ts.no_such_thing  # noqa: B018


def test_version_is_the_same_everywhere() -> None:
    assert ts.__version__ == version("trulysparse")
    assert f"\nversion: {ts.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{ts.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_missing_extension_says_how_to_build() -> None:
    code = "import sys; sys.modules['trulysparse._core'] = None; import trulysparse._kernels"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert re.search(r"ImportError: the compiled core .*pip install \.", result.stderr)
