"""Three tools, calls of them as text, and what is asked of their results."""

from __future__ import annotations

from dfkeval.parsing.toolcall import parse_tool_calls

STR = {"type": "string"}


def tool(name, properties, required=(), **more):
    return {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": properties, "required": list(required), **more},
        },
    }


CITY = tool(
    "city", {"name": STR, "region": STR, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}}, ["name"]
)
NOTE = tool("note", {"path": STR, "body": STR}, ["path", "body"])
PING = tool("ping", {})
TOOLS = [CITY, NOTE, PING]
PING_CALL = "<tool_call>\n<function=ping>\n</function>\n</tool_call>"


def body(inner, name="city"):
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def lenient(text, tools=TOOLS, **options):
    return parse_tool_calls(text, tools, "lenient", **options)


def arguments(result):
    return [(call.name, call.arguments) for call in result.calls]


def codes(result):
    return [(problem.status, problem.code) for problem in result.problems]


def note(value):
    return body(f"<parameter=path>\np\n</parameter>\n<parameter=body>\n{value}\n</parameter>\n", "note")
