"""Music in, a data set of captioned spectrogram pictures out: :func:`prepare`."""

from riff.prepare.ray_engine import prepare_on_ray
from riff.prepare.report import Report
from riff.prepare.run import prepare
from riff.prepare.settings import PrepareSettings

__all__ = ["PrepareSettings", "Report", "prepare", "prepare_on_ray"]
