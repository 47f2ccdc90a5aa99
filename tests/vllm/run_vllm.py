"""Runs a model in vLLM, in an environment of its own: run_vllm.py REQUEST ANSWER.

REQUEST is JSON: "model", a folder; "prompts", token numbers; "new", how many tokens to add, the
likeliest each time; "options" of LLM. ANSWER gets JSON: "tokens" and "logprobs" of the new tokens by
prompt, "top", the log probabilities of the likeliest tokens at each of them, by token number;
"seconds" that loading and generating took; "parameters" of rank 0, by name: shape and dtype.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def shapes(model: Any) -> dict[str, tuple[list[int], str]]:
    return {
        name: (list(value.shape), str(value.dtype)) for name, value in model.named_parameters()
    }


def main(request_path: str, answer_path: str) -> None:
    from vllm import LLM, SamplingParams

    request = json.loads(Path(request_path).read_text("utf-8"))
    begin = time.perf_counter()
    llm = LLM(model=request["model"], skip_tokenizer_init=True, **request["options"])
    loaded = time.perf_counter()
    sampling = SamplingParams(
        temperature=0, max_tokens=request["new"], ignore_eos=True, logprobs=5, detokenize=False
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
    runs = [made.outputs[0] for made in llm.generate(prompts, sampling, use_tqdm=False)]
    generated = time.perf_counter()
    answer = {
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
        "parameters": llm.apply_model(shapes)[0] if request.get("parameters") else None,
    }
    Path(answer_path).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
