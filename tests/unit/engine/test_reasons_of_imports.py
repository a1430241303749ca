"""A model whose code cannot be imported: the package that is missing is the reason."""

from __future__ import annotations

from vllamad.engine.reasons import is_deterministic, last_meaningful_line

# What vLLM 0.32 says of LLaVA where torchvision is missing, less most of its tracebacks.
SAID = """\
(APIServer pid=26020) ERROR 11-23 09:48:52 [registry.py:1120] Error in inspecting model architecture 'LlavaForConditionalGeneration'
(APIServer pid=26020) ERROR 11-23 09:48:52 [registry.py:1120] RuntimeError: Error raised in subprocess:
(APIServer pid=26020) ERROR 11-23 09:48:52 [registry.py:1120]     from torchvision.transforms.v2 import functional as tvF
(APIServer pid=26020) ERROR 11-23 09:48:52 [registry.py:1120] ModuleNotFoundError: No module named 'torchvision'
(APIServer pid=26020) ERROR 11-23 09:48:52 [registry.py:1120]
Traceback (most recent call last):
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['LlavaForConditionalGeneration'] failed to be inspected. Please check the logs for more details. [type=value_error, input_value=ArgsKwargs((), {'model': ...nderer_num_workers': 1}), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""  # noqa: E501


def test_a_package_that_is_missing_is_the_reason_and_no_other_try_helps() -> None:
    reason = last_meaningful_line(SAID)
    assert reason == "ModuleNotFoundError: No module named 'torchvision'"
    assert is_deterministic(reason)
