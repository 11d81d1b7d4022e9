"""Projections of the run store into what the user asked for: JSON lines, CSV, Parquet, a folder, a pipe."""

from lcbatch.sinks.factory import ERRORS_VIEW, OUTPUT_VIEW, errors_sink, open_sink
from lcbatch.sinks.paths import OutputPaths, output_paths
from lcbatch.sinks.projector import Projector, StandingRows

__all__ = [
    "ERRORS_VIEW",
    "OUTPUT_VIEW",
    "OutputPaths",
    "Projector",
    "StandingRows",
    "errors_sink",
    "open_sink",
    "output_paths",
]
