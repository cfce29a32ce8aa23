"""What may be asked of ``/v1/embeddings``, checked so that a faulty body costs no more than a sound one."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from scripts.common.contract import Side
from scripts.deploy.texts import Truncate

# OpenAI's limit
MAX_INPUTS = 2048
Text = Annotated[str, Field(min_length=1)]
# pydantic would note an error for each of a million elements, hence fail_fast
Texts = Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
# bool is an int to Python, and 1.0 one to pydantic, but neither is a token
Ids = Annotated[list[StrictInt], Field(fail_fast=True, min_length=1)]
Rows = Annotated[list[Ids], Field(fail_fast=True, min_length=1, max_length=MAX_INPUTS)]
Format = Literal["float", "base64"]


def kind(value: Any) -> str | None:
    """Which form of input this is, by its first element: trying each in turn would read a long list four times."""
    if isinstance(value, str):
        return "text"
    first = value[0] if isinstance(value, list) and value else None
    return {str: "texts", int: "ids", list: "rows"}.get(type(first))


Input = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Rows, Tag("rows")],
    Discriminator(kind),
]


class ApiError(Exception):
    """An error of the request, answered in OpenAI's form."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="forbid")

    input: Input = Field(description="Text, texts, token ids of this model's tokenizer, or a list of such ids.")
    model: str = Field(description="Name of the model; NAME-query and NAME-passage say the side as input_type does.")
    input_type: Side = Field("passage", description="Which prefix and length apply; OpenAI's clients send none.")
    truncate: Truncate = Field("END", description="What happens to texts that are too long; NONE makes them an error.")
    dimensions: int | None = Field(None, ge=1, description="Keep so many values (Matryoshka), normalised again.")
    encoding_format: Format = "float"
    embedding_type: Format | None = Field(None, description="NIM's older name of encoding_format.")
    user: str | None = Field(None, description="Accepted as OpenAI's clients may send it; not used or logged.")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:
        # the first one is enough: pydantic would note each of a million
        unknown = next((name for name in value if name not in cls.model_fields), None) if type(value) is dict else None
        if unknown is not None:
            raise PydanticCustomError("unknown_field", "there is no field {name}", {"name": repr(unknown[:40])})
        return value


def model_names(name: str) -> dict[str, Side | None]:
    """The names a model answers to, each with the side that it says.

    OpenAI's clients cannot send ``input_type``; as with NIM, a suffix of the name does.
    """
    return {name: None, f"{name}-query": "query", f"{name}-passage": "passage"}


def check(request: EmbeddingRequest, name: str, dimension: int) -> Side:
    """The side of a request to the model of this name; :class:`ApiError` when the model cannot answer it."""
    names = model_names(name)
    if request.model not in names:
        message = f"model {request.model[:100]!r} is not served here; the model is {name!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
    if request.dimensions is not None and request.dimensions > dimension:
        raise ApiError(400, f"dimensions must be at most {dimension}", param="dimensions")
    side = names[request.model]
    if side and "input_type" in request.model_fields_set and request.input_type != side:
        raise ApiError(
            400, f"model {request.model!r} contradicts input_type {request.input_type!r}", param="input_type"
        )
    return side or request.input_type
