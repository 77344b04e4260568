"""What is fast and not needed to understand the transformer.

The rest of the transformer calls the functions below, and this is where the fast path is chosen:

    uses_products, attention_by_products   products           short sequences on a CPU
    step_attention                         products           one decoding step, of all beams together
    cross_entropy, chunks                  chunks             losses over large vocabularies
    Packing                                packing            a batch without its padding
    Dropout                                dropout            four random numbers from one draw
    dtype_of                               precision          the type of a frozen decoder's weights
    undrawn                                undrawn            modules whose weights come from a file

Every fast path is tested equal to the plain one, in tests/transformer/fast. None changes the precision of a product:
`step_attention` chooses the library that multiplies, by the only setting that torch has for it.
"""

from lockdec.transformer.fast.chunks import chunks, cross_entropy
from lockdec.transformer.fast.dropout import Dropout
from lockdec.transformer.fast.packing import Packing
from lockdec.transformer.fast.precision import dtype_of
from lockdec.transformer.fast.products import attention_by_products, step_attention, uses_products
from lockdec.transformer.fast.undrawn import undrawn

__all__ = [
    "Dropout",
    "Packing",
    "attention_by_products",
    "chunks",
    "cross_entropy",
    "dtype_of",
    "step_attention",
    "undrawn",
    "uses_products",
]
