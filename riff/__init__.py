"""riff: a sentence becomes music, through latent diffusion on spectrograms.

The public names load when they are first used (see ``__init__.pyi``), so ``import riff`` is quick.
"""

import lazy_loader

from riff.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
