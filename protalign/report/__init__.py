"""The paper's experiments on a store and a split, and one page that shows them."""

from __future__ import annotations

from importlib.util import find_spec

from protalign.core.errors import ProtAlignError

#: Optional libraries that the report needs.
_NEEDED = ("matplotlib", "jinja2")


def check_installed() -> None:
    """Raise ProtAlignError if a library is missing; call it before hours of training."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ProtAlignError(
            f'the report needs {", ".join(missing)}: pip install "protalign[report]"'
        )
