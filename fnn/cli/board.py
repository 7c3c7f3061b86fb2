"""Metrics for TensorBoard, written beside what is shown of a training."""

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import FnnError


def check_tensorboard() -> None:
    """Raise FnnError where tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise FnnError("--tensorboard needs tensorboardX; pip install 'fnn[tensorboard]'")


class Board:
    """Tell another progress everything, and write each epoch's metrics to `folder/tensorboard`."""

    def __init__(self, shown: Any, folder: Path) -> None:
        """Write nothing yet."""
        self.shown, self.folder = shown, folder / "tensorboard"

    def start(self, epochs: int, steps_per_epoch: int, step: int) -> None:
        """Open the file; what an earlier process wrote of later steps does not count."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        self.shown.start(epochs, steps_per_epoch, step)

    def steps(self, epoch: int, done: int, loss: float) -> None:
        """Pass it on."""
        self.shown.steps(epoch, done, loss)

    def epoch(self, row: dict[str, Any]) -> None:
        """Write the metrics of an epoch, by its last step."""
        for name in ("train_loss", "test_loss", "test_accuracy"):
            self._writer.add_scalar(name, row[name], row["step"])
        self._writer.flush()
        self.shown.epoch(row)
