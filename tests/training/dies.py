"""evl, in processes of torchrun of which one is killed at step 5 in the first two starts.

python -m tests.training.dies RANK train --data …
"""

import os
import signal
import sys

import evl.training.loop
from evl.cli.main import main
from evl.runtime.progress import Progress


def hear(phase, step, *arguments, **options):
    is_it = (rank, "training", 5) == (os.environ["RANK"], phase, step)
    if is_it and os.environ["TORCHELASTIC_RESTART_COUNT"] in ("0", "1"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Progress(phase, step, *arguments, **options)


if __name__ == "__main__":
    rank = sys.argv.pop(1)
    evl.training.loop.Progress = hear
    main()
