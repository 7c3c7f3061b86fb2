"""A run folder as one self-contained HTML page; reads nothing but the folder."""

from .page import write_report as write_report
