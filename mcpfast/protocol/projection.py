"""Down-projection: what is described once, in the newest revision's words, as an older revision knows it (section 36).

Everything here takes and gives plain dicts as they stand on the wire. The newest revisions need no change and get none.
"""

from __future__ import annotations

from typing import Any

from mcpfast.protocol.revisions import Revision


def describe(thing: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A tool, resource, template, prompt or Implementation without the members that `revision` does not know."""
    if revision.icons:
        return thing
    drop = {"icons", "description", "websiteUrl"} if "version" in thing else {"icons"}
    if not revision.structured:
        drop |= {"title", "_meta", "outputSchema"}
    if not revision.tool_annotations and "inputSchema" in thing:
        drop.add("annotations")
    fitted = {name: value for name, value in thing.items() if name not in drop}
    if "arguments" in fitted and not revision.structured:
        fitted["arguments"] = [describe(argument, revision) for argument in fitted["arguments"]]
    annotations = fitted.get("annotations")
    if annotations and not revision.structured and "lastModified" in annotations:
        fitted["annotations"] = {k: v for k, v in annotations.items() if k != "lastModified"}
    return fitted


def block(content: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A content block. Audio becomes an embedded resource, a resource link its URI as text, where they do not exist yet."""
    if revision.icons:
        return content
    kind = content.get("type")
    if kind == "audio" and not revision.audio:
        sound = {"uri": "mcpfast:audio", "mimeType": content["mimeType"], "blob": content["data"]}
        content = _instead(content, {"type": "resource", "resource": sound})
    elif kind == "resource_link" and not revision.structured:
        name = content.get("title") or content.get("name") or ""
        text = f"{name}: {content['uri']}" if name else content["uri"]
        content = _instead(content, {"type": "text", "text": text})
    elif kind == "resource":
        content = {**content, "resource": describe(content["resource"], revision)}
    return describe(content, revision)


def _instead(content: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """A block of another type, for the same readers."""
    return {**block, "annotations": content["annotations"]} if "annotations" in content else block


def call_result(result: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A CallToolResult: blocks as the revision knows them, structured content only where it exists and as an object."""
    if revision.modern:
        return result
    fitted = dict(result)
    fitted["content"] = [block(content, revision) for content in result["content"]]
    if "structuredContent" in fitted:
        structured = fitted["structuredContent"]
        if not revision.structured:
            del fitted["structuredContent"]
        elif not isinstance(structured, dict):
            fitted["structuredContent"] = {"result": structured}
    return fitted


def tool(thing: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A tool; an output schema whose root is no object is wrapped, as its results are (2025-06-18 and 2025-11-25)."""
    fitted = describe(thing, revision)
    schema = fitted.get("outputSchema")
    if schema is not None and not revision.modern and schema.get("type") != "object":
        wrapped = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
        fitted = {**fitted, "outputSchema": wrapped}
    return fitted


def prompt_result(result: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A GetPromptResult."""
    if revision.icons:
        return result
    messages = [{**message, "content": block(message["content"], revision)} for message in result["messages"]]
    return {**result, "messages": messages}


def read_result(result: dict[str, Any], revision: Revision) -> dict[str, Any]:
    """A ReadResourceResult."""
    if revision.structured:
        return result
    return {**result, "contents": [describe(item, revision) for item in result["contents"]]}
