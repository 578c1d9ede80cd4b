"""Train the job and leave right after a save has begun.

``python leave.py OUTPUT_DIR exit|exception|end NB_WORKERS`` prints when it leaves; the caller
measures how long the process then takes to end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import job
from breaking import At


def leave() -> None:
    print(f"left at {time.time()}", flush=True)
    if kind == "exit":
        sys.exit(7)
    if kind == "exception":
        raise ValueError("mine")


if __name__ == "__main__":
    folder, kind, workers = sys.argv[1:]
    # The checkpoint of batch 2 is being written while batch 3 is trained.
    epochs, at = (1, ()) if kind == "end" else (2, At(1, 3, "train", leave))
    job.run(
        Path(folder),
        callback=at,
        options=job.EVERY_3,
        nb_training_epochs=epochs,
        dataloader_nb_workers=int(workers),
    )
    leave()
