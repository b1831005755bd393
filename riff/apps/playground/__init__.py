"""The playground: a page in the browser on which all of riff can be played (``riff play``, extra ``ui``)."""
