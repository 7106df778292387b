"""The command `hf-prism` with chunks so small that a few rows make many, for launchers: `torchrun small_chunks.py ...`.

The process whose rank is KILL_RANK has committed one chunk when it dies: launchers end the others at any moment then.
"""

import os
import sys

from processes import BATCH_TOKENS, CHUNK_TOKENS, KILL_POINTS

from hf_prism import batches, cli, runner


if __name__ == "__main__":
    runner.CHUNK_TOKENS, batches.BATCH_TOKENS = CHUNK_TOKENS, BATCH_TOKENS
    if os.environ.get("RANK", "0") == os.environ.get("KILL_RANK"):
        KILL_POINTS["before a chunk gets its name"]()
    sys.exit(cli.main())
