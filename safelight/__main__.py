"""`safelight`, and `python -m safelight`: the command line, but for what serves, which does without its libraries."""

from __future__ import annotations

import gc
import sys

SERVING = ("gateway", "worker", "door")  # as in safelight.serving, which is not to be loaded for every command


def main() -> None:
    """The console script."""
    if len(sys.argv) == 2 and sys.argv[1] in SERVING:
        gc.disable()  # until all is loaded: nothing of that is garbage
        from safelight import serving

        serving.main(sys.argv[1])
    else:
        from safelight import cli

        cli.main()


if __name__ == "__main__":
    main()
