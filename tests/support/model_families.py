"""The essentials of popular model families: config.json's type, and what its chat template shows.

Templates are cut to the texts that tell the families apart, in the words their makers published.
"""

from __future__ import annotations

from typing import NamedTuple

# Without one of these a template never shows the model its tools.
WALKS = "{%- if tools %}{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}{%- endif %}"
CHATML = "<|im_start|>"
PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
HERMES = WALKS + '<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": {}}\\n</tool_call>'
XML = WALKS + "<tool_call>\\n<function=example_function_name>\\n<parameter=one>\\nvalue\\n"
SWITCH = (
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is"
    " defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
OPENS = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
V3 = (
    "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + '\\n' +"
    " '```json'}}{{'<｜Assistant｜>'}}"
)
R1 = V3 + "{% set content = content.split('</think>')[-1] %}"
LLAMA31 = (
    '{%- if tools is not none %}{{- "Environment: ipython\\n" }}{{- \'Respond in the format'
    ' {"name": function name, "parameters": dictionary}\' }}{%- for t in tools %}{%- endfor %}'
)


class Family(NamedTuple):
    name: str
    model_type: str
    template: str
    tools: str | None
    reasoning: str | None


FAMILIES = (
    # Qwen
    Family("Qwen2.5-Instruct", "qwen2", HERMES + PROMPT, "hermes", None),
    Family("Qwen2.5-VL", "qwen2_5_vl", CHATML + PROMPT, None, None),
    Family("QwQ-32B", "qwen2", HERMES + OPENS, "hermes", "deepseek_r1"),
    Family("Qwen3-8B", "qwen3", HERMES + "<think>" + SWITCH, "hermes", "qwen3"),
    Family("Qwen3-30B-A3B", "qwen3_moe", HERMES + "<think>" + SWITCH, "hermes", "qwen3"),
    Family("Qwen3-4B-Instruct-2507", "qwen3", HERMES + PROMPT, "hermes", None),
    Family("Qwen3-30B-A3B-Instruct-2507", "qwen3_moe", HERMES + PROMPT, "hermes", None),
    Family("Qwen3-4B-Thinking-2507", "qwen3", HERMES + OPENS, "hermes", "deepseek_r1"),
    Family("Qwen3-Coder-30B-A3B", "qwen3_moe", XML + PROMPT, "qwen3_coder", None),
    Family("Qwen3-Next-80B-Instruct", "qwen3_next", HERMES + PROMPT, "hermes", None),
    Family("Qwen3-VL-Instruct", "qwen3_vl", HERMES + PROMPT, "hermes", None),
    Family("Qwen3.5", "qwen3_5", XML + "<think>" + SWITCH, "qwen3_coder", "qwen3"),
    # Meta
    Family("Llama-2-chat", "llama", "[INST] <<SYS>>", None, None),
    Family("Llama-3-Instruct", "llama", "<|start_header_id|>", None, None),
    Family("Llama-3.1-Instruct", "llama", LLAMA31 + "<|python_tag|>", "llama3_json", None),
    Family("Llama-3.2-Instruct", "llama", LLAMA31, "llama3_json", None),
    Family("Llama-3.2-Vision", "mllama", LLAMA31 + "<|python_tag|>", "llama3_json", None),
    Family(
        "Llama-4-Scout, as first published", "llama4",
        LLAMA31 + "<|python_start|>", "llama4_json", None,
    ),
    Family("Llama-4-Scout", "llama4", WALKS + "<|python_start|>[f(a=1)]", "llama4_pythonic", None),
    Family("ToolACE", "llama", WALKS + "[func_name1(params_name1=value)]", "pythonic", None),
    Family(
        "functionary-v3.1", "llama",
        WALKS + "<|python_tag|> Environment: ipython <function=example>", None, None,
    ),
    Family("Hermes-3-Llama-3.1", "llama", HERMES + PROMPT, "hermes", None),
    Family("xLAM-2", "llama", WALKS + "You are developed by Salesforce xLAM team", "xlam", None),
    # Mistral
    Family("Mistral-7B-Instruct-v0.1", "mistral", "[INST]", None, None),
    Family("Mistral-Nemo", "mistral", WALKS + '[TOOL_CALLS] [{"name"', "mistral", None),
    Family("Mixtral-8x22B", "mixtral", WALKS + "[TOOL_CALLS]", "mistral", None),
    Family("Mistral-Small-3.1", "mistral3", WALKS + "[TOOL_CALLS]", "mistral", None),
    Family("Magistral", "mistral3", WALKS + "[TOOL_CALLS] [THINK]", "mistral", "mistral"),
    # DeepSeek; what does not show the tools to the model must not promise them
    Family("DeepSeek-V3-0324", "deepseek_v3", V3, None, None),
    Family(
        "DeepSeek-V3-0324, with vLLM's template", "deepseek_v3",
        WALKS + V3, "deepseek_v3", None,
    ),
    Family("DeepSeek-R1", "deepseek_v3", R1 + OPENS, None, "deepseek_r1"),
    Family("DeepSeek-R1-0528-Qwen3-8B", "qwen3", R1, None, "deepseek_r1"),
    Family("R1-Distill-Qwen", "qwen2", R1 + OPENS, None, "deepseek_r1"),
    Family("R1-Distill-Llama", "llama", R1 + OPENS, None, "deepseek_r1"),
    Family(
        "DeepSeek-V3.1", "deepseek_v3",
        "{%- if not thinking is defined -%}<｜tool▁calls▁begin｜>{{'<｜Assistant｜>'}}"
        "{%- if not thinking -%}{{'</think>'}}{%- else -%}{{'<think>'}}{%- endif -%}",
        None, "deepseek_v3",
    ),
    Family("DeepSeek-V3.2", "deepseek_v32", "", "deepseek_v32", "deepseek_v3"),
    # Google
    Family("gemma-2", "gemma2", "<start_of_turn>", None, None),
    Family("gemma-3", "gemma3", "<start_of_turn>", None, None),
    Family("functiongemma", "gemma3_text", WALKS + "<start_function_call>", "functiongemma", None),
    Family(
        "gemma-4", "gemma4",
        WALKS + "enable_thinking <|channel> <|tool_call>", "gemma4", "gemma4",
    ),
    # IBM
    Family("granite-3.1", "granite", WALKS + "<|tool_call|>", "granite", None),
    Family(
        "granite-3.2", "granite",
        WALKS + "<|tool_call|> {%- if thinking %} 'Here is my thought process:'",
        "granite", "granite",
    ),
    Family("granite-4.0", "granitemoehybrid", HERMES, "granite4", None),
    # others
    Family("gpt-oss", "gpt_oss", "<|channel|>", "openai", "openai_gptoss"),
    Family("phi-3.5", "phi3", "<|user|>", None, None),
    Family(
        "phi-4-mini, as published", "phi3",
        "{% if 'tools' in message and message['tools'] is not none %}<|tool|>", None, None,
    ),
    Family("phi-4-mini, with vLLM's template", "phi3", WALKS + "<|tool|>", "phi4_mini_json", None),
    Family(
        "GLM-4.6", "glm4_moe",
        WALKS + "<tool_call>{function-name}\\n<arg_key> <think> enable_thinking", "glm45", "glm45",
    ),
    Family("GLM-4-0414", "glm4", "[gMASK]<sop>", None, None),
    Family("Kimi-K2-Instruct", "kimi_k2", WALKS + "<|tool_calls_section_begin|>", "kimi_k2", None),
    Family(
        "Kimi-K2-Thinking", "kimi_k2",
        WALKS + "<|tool_calls_section_begin|><think></think>", "kimi_k2", "kimi_k2",
    ),
    Family(
        "MiniMax-M2", "minimax_m2", WALKS + "<minimax:tool_call>" + OPENS,
        "minimax_m2", "minimax_m2",
    ),
    Family("Hunyuan-A13B", "hunyuan_v1_moe", WALKS + "<tool_calls><think>\n<answer>",
           "hunyuan_a13b", "hunyuan_a13b"),
    Family("Olmo-3-Instruct", "olmo3", WALKS + "<function_calls>", "olmo3", None),
    Family("Olmo-3-Think", "olmo3", OPENS, None, "olmo3"),
    Family("LFM2", "lfm2", WALKS + "<|tool_call_start|>", "lfm2", None),
    Family("internlm2.5", "internlm2", WALKS + "<|action_start|>", "internlm", None),
    Family("Jamba-1.5", "jamba", WALKS + "<tool_calls>", "jamba", None),
    Family("Seed-OSS", "seed_oss", WALKS + "<seed:tool_call><seed:think>", "seed_oss", "seed_oss"),
    Family(
        "ERNIE-4.5-Thinking", "ernie4_5_moe",
        WALKS + "<tool_call>" + OPENS, "ernie45", "ernie45",
    ),
    Family("ERNIE-4.5", "ernie4_5_moe", "<|begin_of_sentence|>", None, None),
    Family("Nemotron-3-Nano", "nemotron_h", XML + "<think>" + SWITCH, "qwen3_coder", "nemotron_v3"),
    Family("Nemotron-Nano-v2", "nemotron_h", WALKS + "<TOOLCALL>" + OPENS, None, None),
    Family("Llama-3.3-Nemotron-Super-v1.5", "llama", WALKS + "<TOOLCALL> <think>", None, None),
    Family("SmolLM2", "llama", CHATML + PROMPT, None, None),
    Family("SmolLM3", "smollm3", HERMES + "<think>" + SWITCH, "hermes", "qwen3"),
    Family("EXAONE-4.0", "exaone4", HERMES + "<think>" + SWITCH, "hermes", "qwen3"),
    Family("GigaChat3", "deepseek_v3", WALKS + "function call <|role_sep|>", "gigachat3", None),
    Family("Command-A", "cohere2", WALKS + "<|START_THINKING|><|START_ACTION|>",
           "cohere_command3", None),
    Family("LongCat-Flash", "longcat_flash", WALKS + "<longcat_tool_call>", "longcat", None),
    Family("Apertus", "apertus", WALKS + "<|tools_prefix|>", "apertus", None),
    Family("MiMo-V2", "mimo_v2_flash", XML + "<think>" + SWITCH, "mimo", "mimo"),
    Family("Step-3.5-Flash", "step3p5", XML + "<think>", "step3p5", "step3p5"),
    Family("Falcon3", "llama", "<|assistant|>", None, None),
    Family("StarCoder2, without a template", "starcoder2", "", None, None),
)  # fmt: skip

# What vLLM 0.32 has.
TOOL_PARSERS = """
    apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4
    deepseek_v41 dots ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc
    granite4 hermes hf hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba k2_horizon kimi_k2 kimi_k3
    lfm2 ling3 llama3_json llama4_json llama4_pythonic longcat mimo minicpm5 minimax_m2 minimax_m3
    mistral muse_glimmer olmo3 openai phi4_mini_json plamo3 poolside_v1 pythonic qwen3_coder
    qwen3_json qwen3_xml seed_oss step3 step3p5 xlam
"""
REASONING_PARSERS = """
    cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 deepseek_v41 ernie45 gemma4
    glm45 glm47 granite granite_thinking_parser hf holo2 hunyuan_a13b hy_v3 hy_v4 inkling
    k2_horizon kimi_k2 kimi_k3 ling3 mimo minicpmv minimax_m2 minimax_m2_append_think minimax_m3
    mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss plamo3 poolside_v1 qwen3 seed_oss step3
    step3p5
"""
