"""A bad minute of a model's provider, with the gateway, with LiteLLM and with neither of them.

The first provider is well for 10 s, answers 429 for 20 s, 500 for 20 s, stalls after its first content for
20 s, and is well again for 20 s; the second one is always well. Six agents stream all the time.

    python benches/models/bad_minute.py target/release/breakerbox [path/to/litellm] [--short]

The second argument is the program of LiteLLM's proxy in an environment that has it, to have it beside the
gateway in the same run. `--short` divides all times by five.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ARGUMENTS = [one for one in sys.argv[1:] if not one.startswith("--")]
SCALE = 0.2 if "--short" in sys.argv else 1.0
PHASES = [("well", 10), ("429", 20), ("500", 20), ("stalls", 20), ("well again", 20)]
TOTAL = sum(seconds for _, seconds in PHASES) * SCALE
AGENTS = 6
WORDS = 8
# LiteLLM starts with no key that could be guessed.
KEY = "sk-" + secrets.token_hex(32)


def phase(at):
    for name, seconds in PHASES:
        at -= seconds * SCALE
        if at < 0:
            return name
    return PHASES[-1][0]


def chunk(delta, reason=None):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(body)}\n\n".encode()


class Provider:
    """A provider of the test: `script` tells its phase."""

    def __init__(self, script):
        self.script = script
        self.asked = []

    async def serve(self, reader, writer):
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = [line.split(":")[1] for line in head.split("\r\n") if line.startswith("content-length:")]
        await reader.readexactly(int(length[0]) if length else 0)
        now = self.script()
        stays = "connection: close" not in head
        self.asked.append((time.monotonic(), now))
        if now in ("429", "500"):
            code = "rate_limit_exceeded" if now == "429" else "server_error"
            kind = "requests" if now == "429" else "server_error"
            body = json.dumps({"error": {"message": "no", "type": kind, "param": None, "code": code}}).encode()
            writer.write(f"HTTP/1.1 {now} No\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            return stays
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        pieces = [chunk({"role": "assistant", "content": ""})]
        pieces += [chunk({"content": f"word{number} "}) for number in range(WORDS)]
        pieces += [chunk({}, "stop") + b"data: [DONE]\n\n"]
        for number, piece in enumerate(pieces):
            writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await writer.drain()
            if now == "stalls" and number == 1:
                await asyncio.sleep(3600)
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return stays


async def ask(url, patience):
    """Asks for a stream. Returns true if it came whole."""
    host, port, path = url
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = (f"POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n"
               f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body

    async def read():
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request)
            return await reader.read(-1)
        finally:
            writer.close()

    try:
        text = await asyncio.wait_for(read(), patience)
    except (OSError, asyncio.TimeoutError):
        return False
    return b"data: [DONE]" in text and f"word{WORDS - 1}".encode() in text


async def minute(name, url, begun, first):
    ends = []
    began = begun()

    async def agent():
        while time.monotonic() - began < TOTAL:
            asked = time.monotonic()
            whole = await ask(url, 30 * SCALE)
            ends.append((phase(asked - began), whole, time.monotonic() - asked))
            await asyncio.sleep(0.05)

    before = len(first.asked)
    await asyncio.gather(*(agent() for _ in range(AGENTS)))
    out = [one for one in first.asked[before:] if one[1] not in ("well", "well again")]
    out_time = sum(seconds for phase_name, seconds in PHASES if not phase_name.startswith("well")) * SCALE
    share = lambda these: 100 * sum(whole for _, whole, _ in these) / max(1, len(these))
    calm = [one for one in ends if one[0] != "stalls"]
    times = sorted(took for _, whole, took in ends if whole) or [float("nan")]
    print(f"{name:10} {len(ends):6} streams  {share(ends):6.1f} % whole, {share(calm):6.1f} % outside of the stalls  "
          f"p50 {times[len(times) // 2]:.2f} s  {len(out) / out_time:6.2f} requests/s at the first while it is out", flush=True)


def unused():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def until_up(port, program):
    for _ in range(3000):
        if program.poll() is not None:
            raise SystemExit(f"{program.args[0]} ended with exit code {program.returncode}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit(f"{program.args[0]} does not listen")


async def main():
    began = [time.monotonic()]
    first = Provider(lambda: phase(time.monotonic() - began[0]))
    second = Provider(lambda: "well")
    ports = []
    for provider in (first, second):
        server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])

    def begin():
        began[0] = time.monotonic()
        return began[0]

    folder = tempfile.mkdtemp()
    running = []
    try:
        await minute("neither", ("127.0.0.1", ports[0], "/v1/chat/completions"), begin, first)
        gateway, admin = unused(), unused()
        models = "".join(
            f'[dependencies.{name}]\nkind = "model"\napi = "openai"\nurl = "http://127.0.0.1:{port}/v1"\nkey = "sk-x"\n'
            f'timeout.gap = "{5 * SCALE}s"\n' for name, port in zip(("first", "second"), ports))
        with open(os.path.join(folder, "default.toml"), "w") as file:
            file.write(f'[gateway]\nbind = "127.0.0.1:{gateway}"\n[admin]\nbind = "127.0.0.1:{admin}"\n{models}'
                       '[dependencies.chat]\nkind = "pool"\nmembers = ["first", "second"]\n')
        running.append(subprocess.Popen([ARGUMENTS[0], "serve", "--config", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        await until_up(gateway, running[-1])
        await minute("gateway", ("127.0.0.1", gateway, "/chat/v1/chat/completions"), begin, first)
        if len(ARGUMENTS) > 1:
            port = unused()
            config = {
                "model_list": [
                    {"model_name": name, "litellm_params": {"model": "openai/m", "api_base": f"http://127.0.0.1:{at}/v1", "api_key": "sk-x",
                                                            "timeout": 10 * SCALE, "stream_timeout": 5 * SCALE}}
                    for name, at in zip(("m", "spare"), ports)],
                "router_settings": {"fallbacks": [{"m": ["spare"]}], "allowed_fails": 3, "cooldown_time": 10 * SCALE, "num_retries": 1},
                "general_settings": {"master_key": KEY},
            }
            path = os.path.join(folder, "litellm.json")
            with open(path, "w") as file:
                json.dump(config, file)
            # It would fetch a list of prices otherwise.
            local = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            running.append(subprocess.Popen([ARGUMENTS[1], "--config", path, "--port", str(port), "--host", "127.0.0.1"],
                                            env=local, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            await until_up(port, running[-1])
            await minute("LiteLLM", ("127.0.0.1", port, "/v1/chat/completions"), begin, first)
    finally:
        for one in running:
            one.terminate()
            one.wait()
        shutil.rmtree(folder)


asyncio.run(main())
