"""Runs models in vLLM, in an environment of its own: run_vllm.py REQUESTS ANSWERS.

REQUESTS is a JSON list: "model", a folder; "prompts", token numbers; "new", how many tokens to add, the
likeliest each time; "options" of LLM. ANSWERS gets a list: "tokens" and "logprobs" of the new tokens by
prompt; "top", the log probabilities of the likeliest tokens at each of them, by token number; "seconds"
that loading and generating took; or "error" alone. Imports take longer than a small model: so it takes
several.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    begin = time.perf_counter()
    llm = LLM(model=request["model"], skip_tokenizer_init=True, **request["options"])
    loaded = time.perf_counter()
    sampling = SamplingParams(
        temperature=0, max_tokens=request["new"], ignore_eos=True, logprobs=5, detokenize=False
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
    runs = [made.outputs[0] for made in llm.generate(prompts, sampling, use_tqdm=False)]
    generated = time.perf_counter()
    return {
        "tokens": [list(run.token_ids) for run in runs],
        "logprobs": [
            [step[token].logprob for token, step in zip(run.token_ids, run.logprobs, strict=True)]
            for run in runs
        ],
        "top": [
            [{token: entry.logprob for token, entry in step.items()} for step in run.logprobs]
            for run in runs
        ],
        "seconds": [loaded - begin, generated - loaded],
    }


def main(requests_path: str, answers_path: str) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    answers = []
    for request in json.loads(Path(requests_path).read_text("utf-8")):
        try:
            answers.append(answer(request))
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"})
        gc.collect()
        cleanup_dist_env_and_memory()
    Path(answers_path).write_text(json.dumps(answers), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
