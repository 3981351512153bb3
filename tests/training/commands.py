"""Commands of evl, one after the other, in two processes that start once: their arguments as lists in JSON.

Without torchrun there is one start of Python: two forked children, which have imported everything, get the variables
that torchrun sets.
"""

import json
import os
import socket
import sys

import evl.api.judging
import evl.api.training  # noqa: F401
from evl.cli.main import main
from evl.runtime.distributed import join_world


def run(commands: list[list[str]]) -> None:
    with join_world("cpu"):
        for arguments in commands:
            try:
                main(arguments)
            except SystemExit as stop:
                if stop.code:
                    raise


def start(rank: int, port: int, commands: list[list[str]]) -> int:
    """The id of a forked child that is one of two processes: it ends with 0, or 1 with a traceback."""
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        run(commands)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    commands = json.loads(sys.argv[1])
    if "RANK" in os.environ:  # torchrun
        run(commands)
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [start(rank, port, commands) for rank in range(2)]
        sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
