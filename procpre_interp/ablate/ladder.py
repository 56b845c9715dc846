"""The weight controls in order."""

LADDER = (
    "layer_norms_only",
    "norms_only",
    "gaussian",
    "row_norms_only",
    "random_singular_vectors",
    "shuffle_within_layers",
    "shuffle_within_tensors",
    "shuffle_within_columns",
    "shuffle_within_rows",
    "shuffle_across_heads",
    "magnitudes_only",
    "signs_only",
    "keys_only",
    "values_only",
    "flat_spectrum",
    "reversed_spectrum",
    "low_rank",
    "unpair_neurons",
    "sign_flips",
    "shuffle_neurons",
    "shuffle_heads",
)
"""Names of the controls, from the least structure kept to the most.

By how much a matrix still says: nothing; one number; two; one per row; a spectrum; its values as a bag, then as smaller
bags; a half of each weight, or of an MLP's weights; its directions, or its neurons; nearly all; the function. Within
such a step neither of two need contain the other.
`noise`, `low_rank_mlp` and `without_strongest` are no rungs but doses.
"""
