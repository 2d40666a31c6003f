"""The verbs of a client: tools, resources, prompts and completion, one method each, with typed results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from msgspec import Raw

from mcpfast.client.answers import Answers, drive
from mcpfast.client.connection import Connection
from mcpfast.client.negotiation import read_result
from mcpfast.client.results import CallToolResult
from mcpfast.client.session import Progress
from mcpfast.protocol import types

R = TypeVar("R")


class Calls:
    """What can be asked of any server, by whoever has a connection: the other half of `Client`."""

    timeout_s: float | None
    input_required_max_rounds: int
    _answers: Answers
    _connection: Connection | None

    # ---- tools, resources, prompts

    async def list_tools(
        self, cursor: str | None = None, *, meta: Mapping[str, Any] | None = None
    ) -> types.ListToolsResult:
        """One page of the tools; `next_cursor` of the result gives the next.

        Over HTTP, tools that name headers which cannot be are left out (section 13).
        """
        result = await self._list("tools/list", types.ListToolsResult, cursor, meta)
        result.tools = self._open.learn(result.tools)
        return result

    async def list_resources(
        self, cursor: str | None = None, *, meta: Mapping[str, Any] | None = None
    ) -> types.ListResourcesResult:
        """One page of the resources."""
        return await self._list("resources/list", types.ListResourcesResult, cursor, meta)

    async def list_resource_templates(
        self, cursor: str | None = None, *, meta: Mapping[str, Any] | None = None
    ) -> types.ListResourceTemplatesResult:
        """One page of the resource templates."""
        return await self._list("resources/templates/list", types.ListResourceTemplatesResult, cursor, meta)

    async def list_prompts(
        self, cursor: str | None = None, *, meta: Mapping[str, Any] | None = None
    ) -> types.ListPromptsResult:
        """One page of the prompts."""
        return await self._list("prompts/list", types.ListPromptsResult, cursor, meta)

    async def list_tools_all(self) -> AsyncIterator[types.Tool]:
        """Every tool, page after page: `async for tool in client.list_tools_all()`."""
        async for page in self._pages(self.list_tools):
            for tool in page.tools:
                yield tool

    async def list_resources_all(self) -> AsyncIterator[types.Resource]:
        """Every resource, page after page."""
        async for page in self._pages(self.list_resources):
            for resource in page.resources:
                yield resource

    async def list_resource_templates_all(self) -> AsyncIterator[types.ResourceTemplate]:
        """Every resource template, page after page."""
        async for page in self._pages(self.list_resource_templates):
            for template in page.resource_templates:
                yield template

    async def list_prompts_all(self) -> AsyncIterator[types.Prompt]:
        """Every prompt, page after page."""
        async for page in self._pages(self.list_prompts):
            for prompt in page.prompts:
                yield prompt

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        progress_callback: Progress | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        raise_on_error: bool = False,
        input_responses: Mapping[str, Any] | None = None,
        request_state: str | None = None,
        read_timeout_seconds: float | None = None,
    ) -> CallToolResult:
        """Calls a tool.

        A tool that fails gives a result with `is_error`; with `raise_on_error` it raises ToolError.

        What the server asks on the way is answered by the callbacks. `timeout_s` (`read_timeout_seconds` is
        the same) counts for each request that is sent, not for the time the callbacks take between them.
        `input_responses` and `request_state` take up a call that ended with `input_required` earlier. Raises
        MCPError for an unknown tool and other protocol errors, RequestTimeout, ConnectionClosed.
        """
        params: dict[str, Any] = {"name": name}
        if arguments is not None:
            params["arguments"] = dict(arguments)
        result = await self._drive(
            "tools/call",
            params,
            CallToolResult,
            timeout_s=timeout_s if timeout_s is not None else read_timeout_seconds,
            progress=progress_callback,
            meta=meta,
            seed=_seed(input_responses, request_state),
        )
        if raise_on_error:
            result.raise_for_error()
        return result

    async def read_resource(
        self,
        uri: Any,
        *,
        timeout_s: float | None = None,
        progress_callback: Progress | None = None,
        meta: Mapping[str, Any] | None = None,
        input_responses: Mapping[str, Any] | None = None,
        request_state: str | None = None,
    ) -> types.ReadResourceResult:
        """The contents of a resource.

        Raises MCPError when there is none of this URI, and as `call_tool` does.
        """
        return await self._drive(
            "resources/read",
            {"uri": str(uri)},
            types.ReadResourceResult,
            timeout_s=timeout_s,
            progress=progress_callback,
            meta=meta,
            seed=_seed(input_responses, request_state),
        )

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        progress_callback: Progress | None = None,
        meta: Mapping[str, Any] | None = None,
        input_responses: Mapping[str, Any] | None = None,
        request_state: str | None = None,
    ) -> types.GetPromptResult:
        """A prompt, filled in with `arguments`. Raises as `call_tool` does."""
        params: dict[str, Any] = {"name": name}
        if arguments is not None:
            params["arguments"] = dict(arguments)
        return await self._drive(
            "prompts/get",
            params,
            types.GetPromptResult,
            timeout_s=timeout_s,
            progress=progress_callback,
            meta=meta,
            seed=_seed(input_responses, request_state),
        )

    async def complete(
        self,
        ref: types.PromptReference | types.ResourceTemplateReference | Mapping[str, Any],
        argument: Mapping[str, str],
        context_arguments: Mapping[str, str] | None = None,
    ) -> types.CompleteResult:
        """Values for one argument of a prompt or template: `argument` is `{"name": ..., "value": what is
        typed so far}`.
        """
        params: dict[str, Any] = {"ref": ref, "argument": argument}
        if context_arguments is not None:
            params["context"] = {"arguments": context_arguments}
        return await self._ask("completion/complete", params, types.CompleteResult)

    # ---- how

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError(
                "The client is not connected; use it inside `async with Client(...) as client:`"
            )
        return self._connection

    async def _ask(
        self,
        method: str,
        params: dict[str, Any] | None,
        kind: type[R],
        meta: Mapping[str, Any] | None = None,
    ) -> R:
        raw = await self._open.request(
            method, params, timeout_s=self.timeout_s, meta=None if meta is None else dict(meta)
        )
        return read_result(method, raw, kind)

    async def _list(
        self, method: str, kind: type[R], cursor: str | None, meta: Mapping[str, Any] | None
    ) -> R:
        return await self._ask(method, None if cursor is None else {"cursor": cursor}, kind, meta)

    async def _pages(self, fetch: Callable[[str | None], Any]) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            page = await fetch(cursor)
            yield page
            if (
                page.next_cursor is None or page.next_cursor == cursor
            ):  # an empty string is a cursor (section 19)
                return
            cursor = page.next_cursor

    async def _drive(
        self,
        method: str,
        params: dict[str, Any],
        kind: type[R],
        *,
        timeout_s: float | None,
        progress: Progress | None,
        meta: Mapping[str, Any] | None,
        seed: dict[str, Any],
    ) -> R:
        """One call with as many rounds as the server's questions take."""
        connection = self._open

        async def ask(extra: dict[str, Any]) -> Raw:
            return await connection.request(
                method,
                params | extra,
                timeout_s=timeout_s if timeout_s is not None else self.timeout_s,
                on_progress=progress,
                meta=None if meta is None else dict(meta),
            )

        if not connection.modern:
            return read_result(method, await ask(seed), kind)
        result: R = await drive(
            ask,
            lambda raw: read_result(method, raw, kind),
            self._answers,
            self.input_required_max_rounds,
            seed,
        )
        return result


def _seed(input_responses: Mapping[str, Any] | None, request_state: str | None) -> dict[str, Any]:
    seed: dict[str, Any] = {}
    if input_responses is not None:
        seed["inputResponses"] = dict(input_responses)
    if request_state is not None:
        seed["requestState"] = request_state
    return seed
