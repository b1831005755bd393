"""Music in, a data set of captioned spectrograms out: :func:`prepare`."""

from riff.train.data.prepare import prepare
from riff.train.data.ray import prepare_on_ray
from riff.train.data.report import Report
from riff.train.data.settings import PrepareSettings

__all__ = ["PrepareSettings", "Report", "prepare", "prepare_on_ray"]
