"""Training pairs that need no language model: a title, or a sentence taken out of its passage, as the query.

The inverse cloze task (Lee, Chang and Toutanova 2019, "Latent Retrieval for Weakly Supervised Open Domain Question
Answering", ACL) asks a model to find the passage that a sentence was cut from; nine times in ten the sentence is cut,
so that the model cannot only match words. These pairs are for training, never for test queries.
"""

from typing import Any

from scripts.common.files import sha256_text
from scripts.sdg.filters import length_in_words
from scripts.sdg.generated import make_pair
from scripts.sdg.sentences import prose_spans

TITLE, CLOZE = "title", "cloze"
QUERY_TYPES = (TITLE, CLOZE)
# Words of a sentence that says enough to be searched for, and of a passage that is left to be found
_QUERY_WORDS = range(6, 41)
_REST_WORDS = 20
_KEPT_WHOLE = 10  # one in so many passages keeps the sentence


def llm_free_pairs(record: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """At most ``count`` pairs of a record: its title first, then sentences chosen by hash (the same in every run)."""
    pairs = _title_pair(record) if count else []
    candidates = []
    for chunk in record["chunks"]:
        # nobody searches by code
        for start, end in prose_spans(chunk["text"]):
            sentence = " ".join(chunk["text"][start:end].split())
            rest = f"{chunk['text'][:start].rstrip()} {chunk['text'][end:].lstrip()}".strip()
            if length_in_words(sentence, r"\w+") in _QUERY_WORDS and length_in_words(rest) >= _REST_WORDS:
                digest = bytes.fromhex(sha256_text(f"{record['source_id']}\n{sentence}"))
                candidates.append((digest, chunk["chunk_id"], sentence, rest))
    for digest, segment, sentence, rest in sorted(candidates)[: count - len(pairs)]:
        passage = {} if digest[-1] % _KEPT_WHOLE == 0 else {"passage": rest}
        pairs.append(make_pair(sentence, [segment], query_type=CLOZE, training_only=True, **passage))
    return pairs


def _title_pair(record: dict[str, Any]) -> list[dict[str, Any]]:
    name, chunks = record.get("title", ""), record["chunks"]
    if not chunks or length_in_words(name, r"\w+") < 2:
        return []
    segment, text = chunks[0]["chunk_id"], chunks[0]["text"]
    rest = text.replace(name, "", 1).lstrip("# \n")
    if length_in_words(rest) < _REST_WORDS:
        # the title stands alone in its chunk; the next one, if it is of the same document, is what it is about
        if len(chunks) < 2 or chunks[1].get("doc_path") != chunks[0].get("doc_path"):
            return []
        segment, rest = chunks[1]["chunk_id"], chunks[1]["text"]
    return [make_pair(name, [segment], query_type=TITLE, training_only=True, passage=rest)]
