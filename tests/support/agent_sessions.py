"""Requests as Codex and Claude Code send them: hosted tools, and histories of their work."""

from __future__ import annotations

from typing import Any

FUNCTION_CALL = {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"}
CODEX: dict[str, Any] = {
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer",
         "content": [{"type": "input_text", "text": "<permissions>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed",
         "action": {"type": "search", "query": "x"}},
        {"type": "local_shell_call", "call_id": "l1", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "call_id": "l1", "output": "a.txt"},
        FUNCTION_CALL,
        {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go on"}]},
    ],
    "tools": [{"type": "web_search"}, {"type": "local_shell"}, {"type": "image_generation"}],
    "tool_choice": "auto", "parallel_tool_calls": False, "store": False,
    "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    "reasoning": {"effort": "medium", "summary": "auto"},
}  # fmt: skip
CLAUDE: dict[str, Any] = {
    "max_tokens": 50,
    "system": [{"type": "text", "text": "You are Claude Code.",
                "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [
            {"type": "document", "title": "T",
             "source": {"type": "text", "media_type": "text/plain", "data": "said"}},
            {"type": "document",
             "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}},
            {"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}},
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1",
             "content": [{"type": "tool_reference", "tool_name": "Read"},
                         {"type": "text", "text": "42"}]},
            {"type": "text", "text": "go on"},
        ]},
    ],
    "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    "tool_choice": {"type": "auto"}, "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}  # fmt: skip
