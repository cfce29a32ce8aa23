"""The model card: what the model was made from, and how to use it as it was trained."""

from typing import Any

from scripts.common.contract import Contract


def model_card(contract: Contract, summary: dict[str, Any], facts: dict[str, Any]) -> str:
    """Markdown for ``README.md`` beside the weights."""
    chosen = summary["chosen"]
    kept = {0: "the base model's weights: no checkpoint was better on validation", 1: "the tuned weights"}.get(
        chosen["share"], f"{chosen['share']:.0%} of the way from the base model to the tuned weights"
    )
    validation = "\n".join(
        f"| {row['step']} | {row['share']:.2f} | {row['ndcg@10']:.4f} |" for row in summary["validation"]
    )
    options = "\n".join(f"| {name} | {value} |" for name, value in sorted(facts["options"].items()))
    table = (
        f"\n\n| step | share of the tuning | validation nDCG@10 |\n|---|---|---|\n{validation}" if validation else ""
    )
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {contract.model}
---

# Embedding model tuned by embed-recipe

Base model `{contract.model}`, tuned on {summary["examples"]} question-passage pairs.
These are {kept} (step {chosen["step"]}).{table}

## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
queries = model.encode_query(["a question"])
passages = model.encode_document(["a passage"])
```

Pooling `{contract.pooling}`, vectors {"of unit length" if contract.l2_normalize else "not normalised"},
{contract.dimension} dimensions; query prefix `{contract.query_prefix!r}`, passage prefix `{contract.passage_prefix!r}`;
at most {contract.query_max_length} query and {contract.passage_max_length} passage tokens (`contract.json`).

## Training

| option | value |
|---|---|
{options}

Data (SHA-256): {", ".join(f"`{digest[:16]}`" for digest in facts["data"])}.
Base weights: `{contract.weights_sha256[:16]}`.
"""
