"""Runs a GGUF in llama.cpp, in an environment of its own: run_llama.py MODEL REQUEST ANSWER.

REQUEST is JSON: "prompts", token numbers; "new", how many tokens to add, the likeliest each time;
"texts" to tokenize. ANSWER gets JSON: "runs", "tokens" and the "logits" of each position of a prompt;
"texts" as token numbers, and "pieces", these as text again. All that llama.cpp can keep in float32 it
keeps.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
from llama_cpp import llama_cpp as api

GGML_TYPE_F32 = 0


def main(model_path: str, request_path: str, answer_path: str) -> None:
    request = json.loads(Path(request_path).read_text("utf-8"))
    llama_cpp.llama_backend_init()
    options = api.llama_model_default_params()
    options.n_gpu_layers = 0
    model = api.llama_model_load_from_file(model_path.encode(), options)
    if not model:
        sys.exit(f"llama.cpp does not load {model_path}")
    vocabulary = api.llama_model_get_vocab(model)
    settings = api.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 256, 1, 1
    settings.type_k = settings.type_v = GGML_TYPE_F32
    settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = api.llama_init_from_model(model, settings)
    size = api.llama_vocab_n_tokens(vocabulary)

    def step(number: int) -> list[float]:
        batch = api.llama_batch_get_one((api.llama_token * 1)(number), 1)
        if api.llama_decode(context, batch):
            sys.exit("llama.cpp does not decode")
        return list(api.llama_get_logits_ith(context, -1)[:size])

    runs = []
    for prompt in request["prompts"]:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        tokens, logits = list(prompt), [step(number) for number in prompt]
        for _ in range(request["new"]):
            tokens.append(max(range(size), key=logits[-1].__getitem__))
            logits.append(step(tokens[-1]))
        runs.append({"tokens": tokens, "logits": logits})
    texts, pieces = [], []
    for text in request["texts"]:
        raw = text.encode()
        found = (api.llama_token * 512)()
        count = api.llama_tokenize(vocabulary, raw, len(raw), found, 512, True, False)
        texts.append(list(found[:count]))
        room = ctypes.create_string_buffer(4096)
        count = api.llama_detokenize(vocabulary, found, count, room, 4096, True, False)
        pieces.append(room.raw[:count].decode("utf-8"))
    answer = {"runs": runs, "texts": texts, "pieces": pieces}
    Path(answer_path).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
