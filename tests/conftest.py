"""What every test needs, whatever started the tests."""

import signal

from hypothesis import settings

# no deadline: how long an example takes says more about the machine's load than about the code
settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")

# A shell starts background jobs with Ctrl-C ignored, and everything they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
