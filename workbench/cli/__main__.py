"""``python -m workbench.cli COMMAND ...``: the command line where the script is not on the path."""

import os
import signal
import sys

from workbench.cli.main import main

if __name__ == "__main__":
    # The leader of a session has no terminal whose Ctrl-C could reach it by mistake: a SIGINT is for it,
    # even when whoever started it was itself started with SIGINT ignored (a background job of a script).
    if hasattr(os, "getsid") and os.getsid(0) == os.getpid():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
