"""Metrics for TensorBoard, written while another progress shows the run."""

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import FnnError
from ..metrics import METRICS


def check_tensorboard() -> None:
    """Raise FnnError if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise FnnError("--tensorboard needs tensorboardX; pip install 'fnn[tensorboard]'")


class Board:
    """Write the metrics of each epoch to `folder/tensorboard`, and call another progress."""

    def __init__(self, progress: Any, folder: Path) -> None:
        self.progress, self.folder = progress, folder / "tensorboard"

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Open the file; TensorBoard ignores what an earlier process wrote about later steps."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        self.progress.start(epochs, steps_per_epoch, step)

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Call the other progress."""
        self.progress.steps(epoch, done, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the metrics of an epoch, by its last step."""
        for name in METRICS:
            self._writer.add_scalar(name, row[name], row["step"])
        self._writer.flush()
        self.progress.epoch(row)
