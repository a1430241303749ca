"""The model of the tests on the real engine, and a question whose answer is stable."""

from __future__ import annotations

MODEL = "smollm2:135m"
# Without its second sentence the answer begins with a coin toss: 0.1 to 0.25 nats between two
# tokens, less than what kernels differ by. With it each token leads by 1.7 or more.
QUESTION = "What is the capital of France? Answer with one word."
