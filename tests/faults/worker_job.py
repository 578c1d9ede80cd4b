"""Train with worker processes until something outside ends it:
``python tests/faults/worker_job.py medjax OUTPUT_DIR DIARY``, or ``medjax_torch``.

What workers import is in this module, so that they do not import torch needlessly.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import job
from diary import Diary

OPTIONS = {"length_window": 0, "worker_timeout": 60.0}


def slowly(item: dict[str, Any]) -> dict[str, Any]:
    """Preprocess an item slowly enough for signals to arrive."""
    time.sleep(0.02)
    return {"input_ids": item["tokens"], "scale": 1.0, "label": item["label"]}


def main(door: str, output_dir: Path, diary: Path) -> None:
    more = {"callback": Diary(diary), "nb_training_epochs": 500, "dataloader_nb_workers": 2}
    if door == "medjax":
        parts = job.component()._replace(preprocess=slowly)
        job.run(output_dir, parts=parts, options=OPTIONS, **more)
        return
    import torch_job

    component = torch_job.SlowClassifier()
    torch_job.make(output_dir, component=component, options=OPTIONS, **more).train()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
