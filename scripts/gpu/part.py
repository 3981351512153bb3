"""Runs one part of a round in this process: python part.py MODULE --rows FILE --work FOLDER [--dry] [ARGUMENT …]

Each row that the module's ``run(settings, *arguments)`` yields becomes a line of JSON in FILE at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--name")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    module = importlib.import_module(options.module)
    if options.dry:
        _be_quick()
    from settings import Settings

    from evl.runtime.distributed import pick_device

    settings = Settings(pick_device(options.device), options.work, options.dry)
    all_ok = True
    with open(options.rows, "a", encoding="utf-8") as file:
        for row in module.run(settings, *options.arguments):
            if "ok" in row:
                row["ok"] = bool(row["ok"])
                all_ok &= row["ok"]
            file.write(json.dumps({"part": options.name or options.module, "row": row}, default=str) + "\n")
            file.flush()
    raise SystemExit(0 if all_ok else WRONG)


def _be_quick() -> None:
    """One thread, since what is tiny only waits for more of them, and compiling up to where code would be made."""
    import torch

    torch.set_num_threads(1)
    plain = torch.nn.Module.compile

    def compile_no_code(module, *args, **kwargs):
        return plain(module, *args, **{**kwargs, "backend": "aot_eager"})

    torch.nn.Module.compile = compile_no_code


WRONG = 3  # exit code: it ran to its end, and some of its rows are not ok

if __name__ == "__main__":
    main()
