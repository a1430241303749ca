"""A logits processor for real vLLM: the model says the text in SCRIPT, token by token, and stops.

Everything behind the sampler is the engine's own: detokenizer, parsers, the spelling of the stream.
Runs in the engine's Python, which knows nothing of this project.
"""

from __future__ import annotations

import os
from pathlib import Path

from tokenizers import Tokenizer
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor


class Scripted(AdapterLogitsProcessor):
    def __init__(self, vllm_config, device, is_pin_memory):
        super().__init__(vllm_config, device, is_pin_memory)
        model = vllm_config.model_config
        tokenizer = Tokenizer.from_file(str(Path(model.tokenizer) / "tokenizer.json"))
        end = model.hf_config.eos_token_id
        said = tokenizer.encode(os.environ["SCRIPT"], add_special_tokens=False).ids
        self.tokens = [*said, end]

    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        return self.force

    def force(self, output, logits):
        token = self.tokens[min(len(output), len(self.tokens) - 1)]
        logits[:] = float("-inf")
        logits[token] = 0.0
        return logits
