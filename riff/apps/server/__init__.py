"""``riff serve``: the pipeline over HTTP, with one bounded queue in front of the model. Needs ``riff-music[serve]``."""
