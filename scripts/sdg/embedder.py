"""The endpoint whose vectors find near duplicates among the questions, where one is configured."""

from typing import Any

from scripts.common.errors import UserError
from scripts.common.llm import LOCAL, check_egress, endpoint_options, read_key
from scripts.common.llm_embedding import EmbeddingModel
from scripts.common.replies import ReplyStore


def check_embedder(config: dict[str, Any]) -> None:
    """Whether the endpoint of ``sdg.embed_model`` may be used and its key is there; nothing is sent.

    Asked before any question is paid for, which is long before the endpoint is needed.

    Raises:
        UserError: It may not; the message names the option and the fix.
    """
    provider, model = config["sdg"]["embed_provider"], config["sdg"]["embed_model"]
    if model is None:
        return
    if provider == LOCAL and LOCAL not in config["llm"]["providers"]:
        raise UserError(
            "sdg.embed_provider is local, but the bundled server makes no vectors. Set sdg.embed_model to null (the "
            "base model then finds duplicates), or name a provider of llm.providers."
        )
    place = config["llm"]["providers"][provider]
    try:
        check_egress(place["base_url"], config["allow_egress"])
        read_key(place["api_key_env"])
    except UserError as error:
        raise UserError(
            f"sdg.embed_model ({model} at {provider}), which finds near duplicates among the questions: {error} Or set "
            "sdg.embed_model to null: the base model then finds them."
        ) from None


def open_embedder(config: dict[str, Any], store: ReplyStore) -> EmbeddingModel | None:
    """The endpoint that ``sdg.embed_model`` names, or ``None``; :class:`UserError` when it cannot be used."""
    check_embedder(config)
    provider, model = config["sdg"]["embed_provider"], config["sdg"]["embed_model"]
    if model is None:
        return None
    return EmbeddingModel(**endpoint_options(config, provider), model=model, store=store)
