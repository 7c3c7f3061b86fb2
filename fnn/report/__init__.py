"""Reports of run folders: one as a self-contained HTML page, or two compared side by side."""

from .diff import diff as diff
from .find import find_run as find_run
from .page import write_report as write_report
from .sweep import write_sweep_report as write_sweep_report
