"""The barest gateway of a good library: aiohttp.web and aiohttp's client, the body parsed, on uvloop.

    python benchmarks/gateway_peers.py --port 8081 --upstream http://127.0.0.1:8000

No key, no limit, no log, no fallback; a floor for what such a library costs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM = web.AppKey("upstream", str)
CLIENT = web.AppKey("client", aiohttp.ClientSession)


async def _pass(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    streams = json.loads(body).get("stream") is True
    headers = {"Content-Type": "application/json"}
    async with request.app[CLIENT].post(
        request.app[UPSTREAM] + request.path, data=body, headers=headers
    ) as answer:
        kind = answer.headers["Content-Type"]
        if not streams:
            return web.Response(
                body=await answer.read(), status=answer.status, headers={"Content-Type": kind}
            )
        passed = web.StreamResponse(status=answer.status, headers={"Content-Type": kind})
        await passed.prepare(request)
        async for data in answer.content.iter_any():
            await passed.write(data)
        await passed.write_eof()
        return passed


async def _client(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app[CLIENT]:
        yield


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    told = parser.parse_args()
    app = web.Application()
    app[UPSTREAM] = told.upstream
    app.cleanup_ctx.append(_client)
    app.router.add_post("/v1/chat/completions", _pass)
    web.run_app(
        app, host="127.0.0.1", port=told.port, access_log=None, print=None, loop=uvloop.new_event_loop()
    )


if __name__ == "__main__":
    main()
