"""An endpoint of keys that misbehaves in the way it is told: one JSON line in, one line with its count out.

Run as a process of its own, so that measuring a guard does not measure it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from typing import Any

_SAID: dict[str, Any] = {"mode": "good", "body": ""}
_COUNT = {"/jwks": 0, "/elsewhere": 0}


def _plain(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    path = head.split(b" ", 2)[1].decode()
    _COUNT[path] = _COUNT.get(path, 0) + 1
    mode, body = _SAID["mode"], _SAID["body"].encode()
    if path == "/elsewhere":
        writer.write(_plain(body))
    elif mode == "good":
        writer.write(_plain(body, "Content-Type: application/json"))
    elif mode == "hang":
        await asyncio.sleep(3600)
    elif mode == "hang in the body":
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        await writer.drain()
        await asyncio.sleep(3600)
    elif mode == "drip":
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)
    elif mode == "drip headers":
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            writer.write(f"X-{number}: y\r\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
    elif mode == "endless body":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            await writer.drain()
    elif mode == "endless headers":
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Y: " + b"z" * 1000 + b"\r\n")
            await writer.drain()
    elif mode == "a huge length":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + body)
        await writer.drain()
        await asyncio.sleep(3600)
    elif mode == "cut short":
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 10}\r\n\r\n".encode() + body)
    elif mode == "compressed":
        bomb = gzip.compress(b" " * 50_000_000)
        writer.write(_plain(bomb, "Content-Encoding: gzip"))
    elif mode == "redirect":
        writer.write(_plain(body, "Location: /elsewhere", status="302 Found"))
    elif mode == "not http":
        writer.write(b"\x00\x01\x02 220 smtp.example ready\r\n")
    elif mode == "close":
        pass
    elif mode == "informational":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </elsewhere>\r\n\r\n" + _plain(body))
    else:  # a status
        writer.write(_plain(body, status=mode))
    await writer.drain()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await _answer(reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    _tell(str(server.sockets[0].getsockname()[1]))
    while line := await asyncio.to_thread(sys.stdin.readline):
        _SAID.update(json.loads(line))
        _tell(json.dumps(_COUNT))


if __name__ == "__main__":
    asyncio.run(_main())
