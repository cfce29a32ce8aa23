"""A loopback endpoint that answers the full protocol, as well or as badly as it is told to.

Run as a process of its own (``python tests/sdg/endpoint.py``), so that it counts what arrives without sharing the
interpreter with the client. ``GET /log`` tells what it has seen. Faults are drawn by a hash of the request, so that two
runs meet the same ones, and only the first try of a request meets one unless its fault is permanent.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import re

TRANSIENT = ("429", "500", "hang", "drop", "html")
MALFORMED = ("truncated", "malformed", "wrong_count", "minus_one", "empty")


class State:
    def __init__(self, options: argparse.Namespace) -> None:
        self.delay, self.share, self.poison = options.delay, options.share, options.poison
        self.busy, self.filtered, self.filter_status = options.busy, options.filtered, options.filter_status
        self.faults = [name for name in options.faults.split(",") if name]
        self.formats, self.refusal = options.formats.split(","), options.refusal
        self.formats_seen: collections.Counter[str] = collections.Counter()
        self.tries: collections.Counter[str] = collections.Counter()
        self.faults_made: collections.Counter[str] = collections.Counter()
        self.requests = self.in_flight = self.peak = 0
        self.samples: list[int] = []
        self.retry_after_broken = 0
        self.refused: dict[str, float] = {}
        self.keys: list[str] = []

    def summary(self) -> dict:
        return {
            "requests": self.requests,
            "distinct": len(self.tries),
            "peak": self.peak,
            "samples": self.samples,
            "faults": dict(self.faults_made),
            "retry_after_broken": self.retry_after_broken,
            "formats": dict(self.formats_seen),
            "keys": sorted(set(self.keys)),
        }


def reply_to(request: dict, fault: str | None) -> str:
    """What a good model would answer, damaged as ``fault`` says."""
    user = request["messages"][-1]["content"]
    form = request.get("response_format", {"type": "none"})
    if "key_concepts" in user and "Form, with all eight lists" in user:
        words = re.findall(r"\w{6,}", user.split("<text>")[-1])[:2] or ["nothing"]
        names = ("key_concepts", "relationships", "themes", "entities", "processes", "insights")
        names += ("technical_terms", "contextual_factors")
        value = {name: [{"text": word, "description": "d", "importance": "i"} for word in words] for name in names}
        if fault == "wrong_count":
            value["themes"] *= 9
    elif "Write exactly" in user:
        wanted = int(re.search(r"Write exactly (\d+)", user)[1])
        first = user.split("write others:")[-1].count("What does") if "write others:" in user else 0
        ids = [int(number) for number in re.findall(r"^Segment (\d+) ", user, re.MULTILINE)]
        subject = re.findall(r"\w{6,}", user.split("=== Section")[-1])
        if fault == "wrong_count":
            wanted += 3
        value = {
            "pairs": [
                {
                    "question": f"What does the {subject[n % len(subject)]} number {n} of {subject[-1]} mean?",
                    "answer": "It means that.",
                    "question_complexity": 3,
                    "query_type": "contextual",
                    "reasoning_type": "factual",
                    "segment_ids": [-1] if fault == "minus_one" else [ids[n % len(ids)]],
                    "hop_contexts": [],
                }
                for n in range(first, first + wanted - (fault == "too_few"))
            ]
        }
    elif "Pairs:" in user:
        count = len(user.split("\nPairs:\n")[1].splitlines())
        score = {"score": 8, "justification": "j"}
        value = {
            "evaluations": [
                {
                    "pair": n + 1,
                    **dict.fromkeys(("relevance", "accuracy", "context_support", "clarity"), score),
                    "overall": {"score": 8.5, "assessment": "a"},
                    "improvements": "",
                }
                for n in range(count - (fault in {"wrong_count", "too_few"} and count > 1))
            ]
        }
    else:
        subject = re.findall(r"\w{6,}", user)[1]
        value = {f"question_{n}": f"What is the use of {subject} in case {n}?" for n in range(1, 4)}
        if "question_1" not in (json.dumps(form) if form["type"] == "json_schema" else user):
            # nobody told it the form
            return "".join(f"{n}. {question}\n" for n, question in enumerate(value.values(), start=1))
    text = json.dumps(value)
    if fault == "truncated":
        return text[: len(text) // 3]
    if fault == "malformed":
        return text.replace(":", "=").replace("[", "")
    if fault == "empty":
        return ""
    return text


def embeddings(texts: list[str]) -> tuple[int, str]:
    """A vector for each text by its letters, in the wrong order but with the right numbers; long texts are refused."""
    if any(len(text) > 200 for text in texts):
        return 400, '{"error": {"message": "input exceeds maximum context length"}}'
    data = [{"object": "embedding", "index": n, "embedding": [len(text), 1.0]} for n, text in enumerate(texts)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return 200, json.dumps({"object": "list", "model": "m", "data": data[::-1], "usage": usage})


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: State) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith("GET /log"):
                await answer(writer, 200, json.dumps(state.summary()))
                continue
            state.requests += 1
            state.in_flight += 1
            state.peak = max(state.peak, state.in_flight)
            state.keys += re.findall(r"authorization: bearer (\S+)", head, re.IGNORECASE)
            try:
                if not await serve(writer, json.loads(body), body, state):
                    return
            finally:
                state.in_flight -= 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def draw_fault(name: str, request: dict, state: State) -> str | None:
    """The fault that a request meets, by its digest ``name``."""
    if state.poison and state.poison in str(request.get("messages", [{}])[-1].get("content")):
        return "500"
    if not state.faults or int(name[:8], 16) / 0xFFFFFFFF >= state.share:
        return None
    fault = state.faults[int(name[8:12], 16) % len(state.faults)]
    return None if fault in TRANSIENT and state.tries[name] > 1 else fault


def refusal(form: str, request: dict, state: State) -> tuple[int, str] | None:
    """Status and body of the answer to a response format that cannot be given."""
    if state.busy > 0:
        state.busy -= 1
        return 429, '{"error": {"message": "too many requests"}}'
    if state.filtered and state.filtered in str(request["messages"][-1]["content"]):
        return state.filter_status, '{"error": {"message": "the content filter was triggered"}}'
    if form not in state.formats:
        return state.refusal, json.dumps({"error": {"message": f"This response_format type is unavailable: {form}"}})
    if form == "json_object" and "json" not in json.dumps(request["messages"]).lower():
        # as OpenAI's own endpoint does
        return 400, '{"error": {"message": "response_format json_object: messages must contain the word json"}}'
    return None


async def serve(writer: asyncio.StreamWriter, request: dict, body: bytes, state: State) -> bool:
    """Answer one request; whether the connection stays open."""
    loop = asyncio.get_running_loop()
    name = hashlib.sha256(body).hexdigest()
    state.tries[name] += 1
    state.retry_after_broken += loop.time() - state.refused.get(name, 0.0) < 0.99
    fault = draw_fault(name, request, state)
    if fault:
        state.faults_made[fault] += 1
    # a tenth more or less: no server answers 64 requests in the same instant
    await asyncio.sleep(state.delay * (0.9 + 0.2 * int(name[12:16], 16) / 0xFFFF))
    form = request.get("response_format", {"type": "none"})["type"]
    state.formats_seen[form] += "input" not in request
    if "input" in request:
        await answer(writer, *embeddings(request["input"]))
        return True
    if fault == "429":
        state.refused[name] = loop.time()
        await answer(writer, 429, '{"error": {"message": "slow down"}}', "Retry-After: 1\r\n")
    elif refused := refusal(form, request, state):
        await answer(writer, *refused)
    elif fault == "500":
        await answer(writer, 500, '{"error": {"message": "internal"}}')
    elif fault == "hang":
        await asyncio.sleep(5)
        return False
    elif fault == "drop":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
        return False
    elif fault == "html":
        await answer(writer, 200, "<html>proxy login</html>")
    else:
        content = reply_to(request, fault)
        if form == "none":
            # as models talk that no grammar holds
            content = f"Sure! Here it is:\n```json\n{content}\n```\nLet me know if you need more."
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(content) // 4, "total_tokens": 1}
        value = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        await answer(writer, 200, json.dumps({**value, "usage": usage}))
    return True


async def answer(writer: asyncio.StreamWriter, status: int, body: str, headers: str = "") -> None:
    raw = body.encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n{headers}\r\n".encode()
        + raw
    )
    await writer.drain()


async def watch(state: State) -> None:
    """Look every 20 ms at how many requests are under way, once there are any."""
    while True:
        await asyncio.sleep(0.02)
        if state.requests:
            state.samples.append(state.in_flight)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", default="")
    parser.add_argument("--share", type=float, default=0.0)
    parser.add_argument("--poison", default="")
    parser.add_argument("--busy", type=int, default=0, help="requests that get 429 without Retry-After")
    parser.add_argument("--filtered", default="", help="text that a content filter refuses")
    parser.add_argument("--filter-status", type=int, default=403, help="status of the filter's answer")
    parser.add_argument("--formats", default="json_schema,json_object,none", help="response formats it knows")
    parser.add_argument("--refusal", type=int, default=400, help="status of its answer to another")
    state = State(parser.parse_args())
    server = await asyncio.start_server(lambda r, w: handle(r, w, state), "127.0.0.1", 0, limit=1 << 26, backlog=512)
    watcher = asyncio.create_task(watch(state))
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(watcher, server.serve_forever())


if __name__ == "__main__":
    asyncio.run(main())
