from .audio.io import load_audio as load_audio
from .audio.io import save_audio as save_audio
from .pipeline import RiffPipeline as RiffPipeline
from .spectrogram.codec import SpectrogramCodec as SpectrogramCodec
from .spectrogram.config import SpectrogramConfig as SpectrogramConfig
from .spectrogram.image import image_to_mel as image_to_mel
from .spectrogram.image import mel_to_image as mel_to_image
from .spectrogram.inversion.waveform import mel_to_waveform as mel_to_waveform
from .spectrogram.mel import waveform_to_mel as waveform_to_mel
from .spectrogram.png import read_png as read_png
from .spectrogram.png import write_png as write_png
from .spectrogram.tempo import TempoMap as TempoMap
from .tasks.clip import Clip as Clip
from .tasks.clip import RiffOutput as RiffOutput
from .tasks.timeline import Keyframe as Keyframe
from .tasks.timeline import Timeline as Timeline
from .utils.errors import RiffError as RiffError

__version__: str
