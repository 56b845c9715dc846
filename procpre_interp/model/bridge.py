"""A HookedTransformer as TransformerLens's own TransformerBridge."""

from typing import TYPE_CHECKING

from procpre_interp.model.hooked_transformer import HookedTransformer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def to_bridge(model: HookedTransformer) -> "TransformerBridge":
    """The same function as TransformerLens's TransformerBridge, in eval mode, with weights of its own."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.conversion_utils import convert_tl_checkpoint
    from transformer_lens.model_bridge.sources import boot_native

    config = model.config
    bridge_config = TransformerBridgeConfig(
        d_model=config.d_model,
        d_head=config.d_head,
        n_layers=config.n_layers,
        n_ctx=config.n_ctx,
        n_heads=config.n_heads,
        d_mlp=config.d_hidden,
        d_vocab=config.d_vocab,
        eps=config.ln_eps,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
        seed=0,  # it then leaves the global generator alone; all weights are replaced
    )
    bridge = boot_native(bridge_config)
    ours = {name: p.detach().clone() for name, p in model.named_parameters()}
    ours["unembed.W_U"] = model.W_U.detach().clone()
    ours["unembed.b_U"] = model.b_U
    bridge.load_state_dict(convert_tl_checkpoint(ours, bridge_config), strict=True)
    return bridge.eval()
