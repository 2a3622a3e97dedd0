"""modelyard: train, prove, ensemble and serve a changing pool of models, from one declared file."""

__version__ = "0.1.0"
