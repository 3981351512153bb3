"""Commands of evl, one after the other, in processes that start once: their arguments as lists in JSON."""

import json
import sys

from evl.cli.main import main
from evl.runtime.distributed import join_world

if __name__ == "__main__":
    with join_world("cpu"):
        for arguments in json.loads(sys.argv[1]):
            try:
                main(arguments)
            except SystemExit as stop:
                if stop.code:
                    raise
