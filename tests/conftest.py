"""The whole suite runs with every jaxtyping annotation checked by beartype."""

from jaxtyping import install_import_hook

install_import_hook("procpre_interp", "beartype.beartype")
