"""Conversations that templates are tried on."""

USER = {"role": "user", "content": "How many primes are below 100? <b>&</b> 'ok'"}
SYSTEM = {"role": "system", "content": "Be brief.\n"}
UNICODE = {
    "role": "user",
    "content": " Ünï\tcödé 日本語 👩‍👩‍👧 e\u0301 \u202e <|im_end|>\r\n",
}
ANSWER = {"role": "assistant", "content": "25"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n25"}
REASONED = {"role": "assistant", "content": "25", "reasoning_content": "\nhm\n"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "function": {"name": "add", "arguments": {"é": [1, 2]}}},
        {"type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}},
    ],
}
CALL_NONE = CALL | {"content": None, "reasoning_content": "I need a tool"}
REPLY = {"role": "tool", "content": '{"sum": 3}'}
WEATHER = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds <numbers> & “more”",
        "parameters": {
            "type": "object",
            "properties": {"é": {"type": "array", "items": {"type": "number"}}},
            "required": ["é"],
        },
    },
}

CHATS = {
    "plain": [USER],
    "system": [SYSTEM, USER],
    "unicode": [UNICODE],
    "turns": [SYSTEM, USER, ANSWER, USER, THOUGHT, UNICODE],
    "late system": [USER, SYSTEM, USER],
    "thought at the end": [USER, THOUGHT],
    "reasoning": [USER, REASONED, USER],
    "reasoning at the end": [USER, REASONED],
    "other name of reasoning": [USER, ANSWER | {"thinking": "so"}],
    "both names of reasoning": [USER, REASONED | {"thinking": "so", "reasoning": "x"}],
    "tool call": [USER, CALL],
    "tool replies": [USER, CALL, REPLY, REPLY, ANSWER, USER],
    "tool replies at the end": [SYSTEM, USER, CALL, REPLY, REPLY],
    "reply written as a user": [
        USER,
        CALL,
        {"role": "user", "content": "<tool_response>3</tool_response>"},
    ],
    "empty content": [{"role": "user", "content": ""}, ANSWER],
}

PARTS = {
    "role": "user",
    "content": [
        {"type": "text", "text": "How many"},
        {"type": "text", "text": " are?"},
    ],
}
NAMED = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [
        {
            "id": "functions.add:0",
            "type": "function",
            "function": {"name": "add", "arguments": {"x": "a < b", "y": [1, None]}},
        }
    ],
}
NAMED_REPLY = {"role": "tool", "tool_call_id": "functions.add:0", "content": "3"}
MORE = {
    "content parts": [SYSTEM, PARTS, ANSWER, PARTS],
    "developer": [{"role": "developer", "content": "Be brief."}, USER],
    "a call and its reply": [USER, NAMED, NAMED_REPLY],
    "a call, thought over": [
        USER,
        NAMED | {"content": "", "thinking": "I add."},
        NAMED_REPLY,
        REASONED,
        USER,
        NAMED,
        NAMED_REPLY,
    ],
    "marks in content": [
        USER,
        ANSWER | {"content": "<|channel|>final<|message|>25"},
        USER,
    ],
}
"""Further ones, for templates whose own idioms these meet."""

TYPES = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up.",
        "parameters": {
            "type": "object",
            "properties": {
                "words": {"type": "array", "items": {"type": "string"}},
                "rows": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"a": {"type": "number"}},
                    },
                },
                "how": {"enum": ["fast", "well"], "default": "fast", "type": "string"},
                "limit": {
                    "oneOf": [{"type": "integer"}, {"type": "null"}],
                    "default": 3,
                    "description": "How many.",
                },
                "either": {"type": ["string", "number"], "nullable": True},
            },
            "required": ["words", "how"],
        },
    },
}
"""A tool whose parameters are of every type that schemas have."""
