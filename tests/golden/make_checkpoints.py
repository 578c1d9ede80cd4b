"""Write checkpoints_format1_*.zip: the output folders of two runs that ended within their second
epoch, with the values in them and the history of the continued run.

Run by hand when the format changes, with the new format in the name; the old files stay:
``PYTHONPATH=.:interop python tests/golden/make_checkpoints.py``.
"""

import contextlib
import json
import tempfile
import zipfile
from pathlib import Path

from golden_runs import RUNS, Restored, StopBefore

from medjax.checkpoint.records import FORMAT

HERE = Path(__file__).parent


def main() -> None:
    for name, train in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            with contextlib.suppress(InterruptedError):
                train(out, callback=[StopBefore(2, 4)])
            files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
            content = {str(name): path.read_bytes() for name, path in sorted(files.items())}
            with Restored() as restored:
                history = train(out, resume="auto")
        expected = {**vars(restored), "history": history}
        expected = {key: expected[key] for key in ("state", "progress", "history")}
        target = HERE / f"checkpoints_format{FORMAT}_{name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in content.items():
                archive.writestr(f"out/{path}", data)
            archive.writestr("expected.json", json.dumps(expected, indent=1))
        print(target.name, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
