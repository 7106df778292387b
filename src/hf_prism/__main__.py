"""`python -m hf_prism`: the same as the command `hf-prism`."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())
