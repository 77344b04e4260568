"""lockdec: caption what any frozen encoder encodes, by unlocking a pretrained decoder's cross-attention."""

__version__ = "0.1.0"
