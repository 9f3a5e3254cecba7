"""How the embedded prior and its judge are made: corpus, captions, training, evaluation."""
