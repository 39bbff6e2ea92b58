"""``python -m workbench`` is ``workbench``: what ``torchrun -m workbench`` starts on every rank."""

import sys

from workbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
