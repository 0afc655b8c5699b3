"""``python -m protalign`` is the command line: so torchrun starts it, which runs modules."""

from __future__ import annotations

from protalign.cli import main

if __name__ == "__main__":
    main()
