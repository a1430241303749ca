"""Chat templates with the guards of published model families, and nothing else of them.

Each refuses, drops and writes what its family's own template does, as its publisher has it; the
words around it are shortened. `RULES` says what the probe must find in each.
"""

from __future__ import annotations

from vllamad.translate.conversation.template_rules import TemplateRules

_LATER_FIRST = "{% set first = messages[0]['role'] == 'system' %}"
_REST = "{% set rest = messages[1:] if first else messages %}"
_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)
_CALLS = (
    "{% if m.tool_calls %}{% for c in m.tool_calls %}{% set f = c.function %}"
    '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}{% endif %}"
)
_CHATML_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    + _ALTERNATE
    + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- if messages[0]['content'] is string -%}"
    "{%- set prefix = messages[0]['content'] + '\n\n' -%}"
    "{%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}"
    "{%- set rest = messages[1:] -%}{%- else -%}{%- set prefix = '' -%}"
    "{%- set rest = messages -%}{%- endif -%}{%- for m in rest -%}"
    + _ALTERNATE
    + "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n'"
    " + (prefix if loop.first else '') }}"
    "{%- if m['content'] is string -%}{{ m['content'] | trim }}"
    "{%- elif m['content'] is iterable -%}{%- for item in m['content'] -%}"
    "{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}"
    "{%- else -%}{{ raise_exception('Invalid content type') }}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)

LLAMA2 = (
    _LATER_FIRST
    + _REST
    + "{% if first %}{% set system = messages[0]['content'] %}{% else %}{% set system = false %}"
    "{% endif %}{% for m in rest %}" + _ALTERNATE + "{% if loop.index0 == 0 and system != false %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)

# 3.1, 3.2 and 3.3: one text model's template with three dates.
LLAMA3 = (
    "{{ bos_token }}{% set tools_in_user_message = true %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\n' + system + '<|eot_id|>' }}"
    "{% if tools and tools_in_user_message %}{% if messages | length != 0 %}"
    "{% set first = messages[0]['content'] | trim %}{% set messages = messages[1:] %}{% else %}"
    "{{ raise_exception('Cannot put tools in the first user message: there is none') }}{% endif %}"
    "{{ '<|start_header_id|>user<|end_header_id|>\n\n' }}"
    "{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}"
    "{{ first + '<|eot_id|>' }}{% endif %}"
    "{% for m in messages %}"
    "{% if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' }}"
    "{% elif 'tool_calls' in m %}{% if not m.tool_calls | length == 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set f = m.tool_calls[0].function %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    '{{ \'{"name": "\' + f.name + \'", "parameters": \' }}{{ f.arguments | tojson }}{{ "}" }}'
    "{{ '<|eot_id|>' }}"
    "{% elif m.role == 'tool' or m.role == 'ipython' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' }}"
    "{% if m.content is mapping or m.content is iterable %}{{ m.content | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

MISTRAL_V1 = (
    "{{ bos_token }}{% for m in messages %}"
    + _ALTERNATE
    + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)

_NINE = (
    "{% if CALL.id is not defined or CALL.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
    "{% endif %}"
)
_NINE_CALL = _NINE.replace("CALL.id", "c.id")
_NINE_RESULT = _NINE.replace("CALL.id", "m.tool_call_id")

# The system message goes into the last user turn, if that is the last turn of all.
MISTRAL_V3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}"
    "{%- endif %}{%- set ns = namespace() %}{%- set ns.index = 0 %}"
    "{%- for m in loop_messages %}"
    "{%- if not (m.role == 'tool' or m.role == 'tool_results'"
    " or (m.tool_calls is defined and m.tool_calls is not none)) %}"
    "{%- if (m['role'] == 'user') != (ns.index % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate"
    " user/assistant/user/assistant/...') }}{%- endif %}"
    "{%- set ns.index = ns.index + 1 %}{%- endif %}{%- endfor %}{{- bos_token }}"
    "{%- for m in loop_messages %}{%- if m['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\n\n' + m['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif m.tool_calls is defined and m.tool_calls is not none %}{{- '[TOOL_CALLS] [' }}"
    "{%- for c in m.tool_calls %}{%- set out = c.function | tojson %}{{- out[:-1] }}"
    + _NINE_CALL
    + "{{- ', \"id\": \"' + c.id + '\"}' }}{%- endfor %}{{- ']' + eos_token }}"
    "{%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] | trim + eos_token }}"
    "{%- elif m['role'] == 'tool' %}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + m.content | string + ', ' }}"
    + _NINE_RESULT
    + "{{- '\"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported, with the"
    " exception of an initial optional system message!') }}{%- endif %}{%- endfor %}"
)

# Small 2501: roles in any order, no tools.
MISTRAL_V7 = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set system = 'Default.' %}{%- set rest = messages %}{%- endif %}"
    "{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{%- for m in rest %}"
    "{%- if m['role'] == 'user' %}{{- '[INST]' + m['content'] + '[/INST]' }}"
    "{%- elif m['role'] == 'system' %}"
    "{{- '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
    "{%- elif m['role'] == 'assistant' %}{{- m['content'] + eos_token }}"
    "{%- else %}{{- raise_exception('Only user, system and assistant roles are supported!') }}"
    "{%- endif %}{%- endfor %}"
)

# Of 2512: alternation without the turns of tools, nothing blank, contents as text or as parts.
MINISTRAL = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}"
    "{%- if messages[0]['content'] is string %}{{- '[SYSTEM_PROMPT]' + messages[0]['content'] }}"
    "{%- else %}{%- for b in messages[0]['content'] %}{%- if b['type'] == 'text' %}{{- b['text'] }}"
    "{%- else %}{{- raise_exception('Only text chunks are supported in system messages.') }}"
    "{%- endif %}{%- endfor %}{%- endif %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set rest = messages %}{%- endif %}{%- set ns = namespace(index=0) %}"
    "{%- for m in rest %}{%- if m.role == 'user' or (m.role == 'assistant' and"
    " (m.tool_calls is not defined or m.tool_calls is none or m.tool_calls | length == 0)) %}"
    "{%- if (m['role'] == 'user') != (ns.index % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate"
    " user and assistant roles except for tool calls and results.') }}{%- endif %}"
    "{%- set ns.index = ns.index + 1 %}{%- endif %}{%- endfor %}"
    "{%- for m in rest %}{%- if m['role'] == 'user' %}"
    "{%- if m['content'] is string %}{{- '[INST]' + m['content'] + '[/INST]' }}"
    "{%- elif m['content'] | length > 0 %}{{- '[INST]' }}{%- for b in m['content'] %}"
    "{%- if b['type'] == 'text' %}{{- b['text'] }}{%- endif %}{%- endfor %}{{- '[/INST]' }}"
    "{%- else %}{{- raise_exception('User message must have a string or a list of chunks') }}"
    "{%- endif %}{%- elif m['role'] == 'assistant' %}"
    "{%- if (m['content'] is none or m['content'] == '' or m['content'] | length == 0) and"
    " (m.tool_calls is not defined or m.tool_calls is none or m.tool_calls | length == 0) %}"
    "{{- raise_exception('Assistant message must have a string or a list of chunks in content or"
    " a list of tool calls.') }}{%- endif %}"
    "{%- if m['content'] is string %}{{- m['content'] }}{%- elif m['content'] | length > 0 %}"
    "{%- for b in m['content'] %}{{- b['text'] }}{%- endfor %}{%- endif %}"
    "{%- if m.tool_calls is defined and m.tool_calls %}{%- for c in m.tool_calls %}"
    "{{- '[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments | tojson }}"
    "{%- endfor %}{%- endif %}{{- eos_token }}"
    "{%- elif m['role'] == 'tool' %}"
    "{{- '[TOOL_RESULTS]' + m['content'] | string + '[/TOOL_RESULTS]' }}"
    "{%- else %}{{- raise_exception('Only user, assistant and tool roles are supported, got '"
    " + m['role'] + '.') }}{%- endif %}{%- endfor %}"
)

QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nDefault.<|im_end|>\n' }}{%- endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'system' and not loop.first)"
    " or (m.role == 'assistant' and not m.tool_calls) %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant' }}"
    "{%- if m.content %}{{- '\n' + m.content }}{%- endif %}"
    + _CALLS
    + "{{- '<|im_end|>\n' }}{%- elif m.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}" + _CHATML_END
)

# 3: the thought of an old turn goes; what follows it stays.
QWEN3 = (
    "{%- if messages[0].role == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(multi_step_tool=true, last=messages | length - 1) %}"
    "{%- for m in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and m.role == 'user' and m.content is string"
    " and not (m.content.startswith('<tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{%- set content = m.content if m.content is string else '' %}"
    "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' + content.split('</think>')[-1].lstrip('\n') }}"
    + _CALLS
    + "{{- '<|im_end|>\n' }}{%- elif m.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + content + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}" + _CHATML_END
)

QWEN35 = (
    "{%- macro render_content(content) %}{%- if content is string %}{{- content }}"
    "{%- elif content is iterable and content is not mapping %}{%- for item in content %}"
    "{%- if 'image' in item or item.type == 'image' %}{{- '<|image_pad|>' }}"
    "{%- elif 'text' in item %}{{- item.text }}"
    "{%- else %}{{- raise_exception('Unexpected item type in content.') }}{%- endif %}"
    "{%- endfor %}{%- elif content is none or content is undefined %}{{- '' }}"
    "{%- else %}{{- raise_exception('Unexpected content type.') }}{%- endif %}{%- endmacro %}"
    "{%- if not messages %}{{- raise_exception('No messages provided.') }}{%- endif %}"
    "{%- if messages[0].role == 'system' %}"
    "{{- '<|im_start|>system\n' + render_content(messages[0].content) + '<|im_end|>\n' }}"
    "{%- endif %}{%- set ns = namespace(multi_step_tool=true) %}"
    "{%- for m in messages[::-1] %}{%- if ns.multi_step_tool and m.role == 'user' %}"
    "{%- set content = render_content(m.content) | trim %}"
    "{%- if not (content.startswith('<tool_response>') and content.endswith('</tool_response>')) %}"
    "{%- set ns.multi_step_tool = false %}{%- endif %}{%- endif %}{%- endfor %}"
    "{%- if ns.multi_step_tool %}{{- raise_exception('No user query found in messages.') }}"
    "{%- endif %}{%- for m in messages %}{%- set content = render_content(m.content) | trim %}"
    "{%- if m.role == 'system' %}{%- if not loop.first %}"
    "{{- raise_exception('System message must be at the beginning.') }}{%- endif %}"
    "{%- elif m.role == 'user' %}{{- '<|im_start|>user\n' + content + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\n' + content }}"
    "{%- if m.tool_calls and m.tool_calls is iterable and m.tool_calls is not mapping %}"
    "{%- for c in m.tool_calls %}{%- set c = c.function %}"
    "{{- '<tool_call>\n<function=' + c.name + '>\n' }}"
    "{%- for name, value in c.arguments | items %}"
    "{{- '<parameter=' + name + '>\n' + value | string + '\n</parameter>\n' }}{%- endfor %}"
    "{{- '</function>\n</tool_call>' }}{%- endfor %}{%- endif %}{{- '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + content + '\n</tool_response><|im_end|>\n' }}"
    "{%- else %}{{- raise_exception('Unexpected message role.') }}{%- endif %}{%- endfor %}"
    + _CHATML_END
)

# Mini, in its first release: what is no user and no assistant is passed over in silence.
PHI3 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|user|>\n' + m['content'] + '<|end|>\n<|assistant|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
)

PHI4 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ '<|im_start|>system<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    "{% elif m['role'] == 'user' %}"
    "{{ '<|im_start|>user<|im_sep|>' + m['content'] + '<|im_end|>' }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)

# V3 and R1: the last system message wins; calls are written where no words stand beside them.
DEEPSEEK_R1 = (
    "{% set ns = namespace(system='', is_tool=false) %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% set ns.system = m['content'] %}{% endif %}{% endfor %}"
    "{{ bos_token }}{{ ns.system }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set ns.is_tool = false %}{{ '<｜User｜>' + m['content'] }}{% endif %}"
    "{% if m['role'] == 'assistant' and m['content'] is none %}{% set ns.is_tool = false %}"
    "{% for c in m['tool_calls'] %}"
    "{{ '<｜Assistant｜><｜tool▁calls▁begin｜>' + c['function']['name'] + '\n```json\n'"
    " + c['function']['arguments'] + '\n```' }}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' and m['content'] is not none %}"
    "{% if '</think>' in m['content'] %}{% set content = m['content'].split('</think>')[-1] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}"
    "{% if m['role'] == 'tool' %}"
    "{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)

# V3.1: all system messages at the front, arguments as an object.
DEEPSEEK_V31 = (
    "{% set ns = namespace(system='', first=true) %}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{% if ns.first %}{% set ns.system = m['content'] %}"
    "{% set ns.first = false %}{% else %}{% set ns.system = ns.system + '\n\n' + m['content'] %}"
    "{% endif %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{{ '<｜Assistant｜></think>' + (m['content'] or '') }}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}"
    "{{ '<｜tool▁calls▁begin｜>' + c['function']['name'] + '<｜tool▁sep｜>'"
    " + c['function']['arguments'] | tojson }}{% endfor %}{% endif %}"
    "{{ '<｜end▁of▁sentence｜>' }}{% endif %}{% if m['role'] == 'tool' %}"
    "{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜></think>' }}{% endif %}"
)

COMMAND_R = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system = false %}{% endif %}{% if system != false %}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for m in loop_messages %}" + _ALTERNATE + "{% if m['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'"
    " + m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)

# 3.1: any role under its own name; of a message with calls neither the calls nor their absence.
GRANITE3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set system = 'Default.' %}"
    "{%- set loop_messages = messages %}{%- endif %}"
    "{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}"
    "{%- if tools %}{{- '<|start_of_role|>tools<|end_of_role|>' + tools | tojson(indent=4) }}"
    "{%- endif %}{%- for m in loop_messages %}"
    "{%- if m['role'] == 'assistant' and m.tool_calls is defined %}"
    "{{- '<|start_of_role|>assistant<|end_of_role|>' + m['content'] + '<|tool_call|>'"
    " + m.tool_calls | tojson + '<|end_of_text|>\n' }}{%- else %}"
    "{{- '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content']"
    " + '<|end_of_text|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"
)

CHATML = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nDefault.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    + _CHATML_END
)

ZEPHYR = (
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}"
)

# Of its own template, which an engine without harmony would use.
GPT_OSS = (
    "{%- if messages[0].role == 'developer' or messages[0].role == 'system' %}"
    "{%- set system = messages[0].content %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- set rest = messages %}{%- endif %}"
    "{{- '<|start|>developer<|message|>' + system + '<|end|>' }}"
    "{%- set last_tool_call = namespace(name=none) %}{%- for m in rest %}"
    "{%- if m.role == 'assistant' %}"
    "{%- if 'tool_calls' in m %}"
    "{%- if m.content %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.content"
    " + '<|end|>' }}{%- endif %}{%- set c = m.tool_calls[0].function %}"
    "{{- '<|start|>assistant to=functions.' + c.name + '<|message|>' + c.arguments | tojson"
    " + '<|call|>' }}{%- set last_tool_call.name = c.name %}"
    "{%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}"
    "{%- set last_tool_call.name = none %}{%- endif %}"
    "{%- elif m.role == 'tool' %}{%- if last_tool_call.name is none %}"
    "{{- raise_exception('Message has tool role, but there was no previous assistant message with"
    " a tool call!') }}{%- endif %}"
    "{{- '<|start|>functions.' + last_tool_call.name + '<|message|>' + m.content | tojson"
    " + '<|end|>' }}"
    "{%- elif m.role == 'user' %}{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{%- endif %}"
)

KIMI_K2 = (
    "{%- for m in messages %}{%- set name = m.get('name') or m['role'] %}"
    "{{- '<|im_' + m['role'] + '|>' + name + '<|im_middle|>' }}"
    "{%- if m['role'] == 'tool' %}{{- '## Return of ' + m.tool_call_id + '\n' + m['content'] }}"
    "{%- else %}{{- m['content'] }}{%- endif %}"
    "{%- if m['role'] == 'assistant' and m.get('tool_calls') %}"
    "{{- '<|tool_calls_section_begin|>' }}{%- for c in m['tool_calls'] %}"
    "{{- '<|tool_call_begin|>' + c['id'] + '<|tool_call_argument_begin|>'"
    " + c['function']['name'] + c['function']['arguments'] | tojson + '<|tool_call_end|>' }}"
    "{%- endfor %}{{- '<|tool_calls_section_end|>' }}{%- endif %}{{- '<|im_end|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{%- endif %}"
)

FAMILIES = {
    "gemma2": GEMMA2, "gemma3": GEMMA3, "llama2": LLAMA2, "llama3": LLAMA3,
    "mistral-v1": MISTRAL_V1, "mistral-v3": MISTRAL_V3, "mistral-v7": MISTRAL_V7,
    "ministral-2512": MINISTRAL, "qwen2.5": QWEN25, "qwen3": QWEN3, "qwen3.5": QWEN35,
    "phi3": PHI3, "phi4": PHI4, "deepseek-r1": DEEPSEEK_R1, "deepseek-v3.1": DEEPSEEK_V31,
    "command-r": COMMAND_R, "granite3": GRANITE3, "smollm2": CHATML, "zephyr": ZEPHYR,
    "gpt-oss": GPT_OSS, "kimi-k2": KIMI_K2,
}  # fmt: skip

# What the probe finds, as each family's guards have it.
RULES = {
    "gemma2": TemplateRules(
        system="none", developer=False, user="first", alternates=True, tools=False
    ),
    "gemma3": TemplateRules(
        system="first", developer=False, user="first", alternates=True, parts=False, tools=False
    ),
    "llama2": TemplateRules(
        system="first", developer=False, user="first", alternates=True, tools=False
    ),
    "llama3": TemplateRules(developer=False, user="first", call_text=False, one_call=True),
    "mistral-v1": TemplateRules(
        system="none", developer=False, user="first", alternates=True, tools=False
    ),
    "mistral-v3": TemplateRules(
        system="none",
        developer=False,
        user="first",
        alternates=True,
        call_text=False,
        call_ids="alnum9",
    ),
    "mistral-v7": TemplateRules(developer=False, tools=False),
    "ministral-2512": TemplateRules(
        system="first", developer=False, user="first", alternates=True, blank=False
    ),
    "qwen2.5": TemplateRules(developer=False),
    "qwen3": TemplateRules(developer=False),
    "qwen3.5": TemplateRules(system="first", developer=False, user="required"),
    "phi3": TemplateRules(system="none", developer=False, tools=False),
    "phi4": TemplateRules(developer=False, tools=False),
    "deepseek-r1": TemplateRules(system="first", developer=False, tools=False),
    "deepseek-v3.1": TemplateRules(developer=False),
    "command-r": TemplateRules(
        system="first", developer=False, user="first", alternates=True, tools=False
    ),
    "granite3": TemplateRules(developer=False),
    "smollm2": TemplateRules(developer=False, tools=False),
    "zephyr": TemplateRules(developer=False, tools=False),
    "gpt-oss": TemplateRules(system="first", developer=False, one_call=True, paired=True),
    "kimi-k2": TemplateRules(developer=False, call_ids="kimi"),
}
