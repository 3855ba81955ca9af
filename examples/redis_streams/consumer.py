#!/usr/bin/env python3
"""Turns the entries of a Redis stream into calls through Breakerbox.

    python3 consumer.py --redis 127.0.0.1:6379 --gateway http://127.0.0.1:8080 --dependency web

Before it fetches, it asks the gateway whether a call could begin. So in an outage the entries stay in
their stream: none of them is called, counted or given up. Each entry ends once: its answer is kept in
the hash "<stream>:answers", or the entry itself in the hash "<stream>:dead" after five failures of its
own, or at once if it can be no request. Several of these consumers share the work.

An entry has the fields "path" and "body", and headers as "header.<name>". It may be called twice, when
a consumer ends between the call and the answer: the service tells a repetition by "idempotency-key".
"""

import argparse
import http.client
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

GROUP = "breakerbox"
MOST_AT_ONCE = 16
MAX_FAILURES = 5
LONGEST_CALL = 30  # seconds
WRONG_CREDENTIALS = (401, 403, 407)


class RedisError(Exception):
    """An error that Redis has answered with."""


class Redis:
    """The few commands of Redis that this needs. The package redis has them all."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=LONGEST_CALL)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        message = b"*%d\r\n" % len(parts)
        for part in parts:
            message += b"$%d\r\n%s\r\n" % (len(part), part)
        self.socket.sendall(message)
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        length = int(rest)
        if length < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(length)]
        return self.file.read(length + 2)[:-2]


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Nothing goes past the gateway, least of all credentials."""

    def redirect_request(self, *_):
        return None


class Gateway:
    """The gateway of Breakerbox, and one dependency behind it."""

    def __init__(self, url, dependency):
        self.url, self.dependency = url.rstrip("/"), dependency
        self.opener = urllib.request.build_opener(NoRedirects)

    def open(self, path, body=None, headers=None, timeout=LONGEST_CALL):
        """Returns the status, the headers and the body, whatever the status is."""
        request = urllib.request.Request(self.url + path, data=body, headers=headers or {})
        try:
            response = self.opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            try:
                return response.status, response.headers, response.read()
            except http.client.IncompleteRead as cut:
                return 502, response.headers, cut.partial

    def ready(self, wait):
        """Returns the number of calls that could begin, and the seconds until another question."""
        path = f"/.breakerbox/{self.dependency}/ready?wait={wait}s"
        status, _, body = self.open(path, timeout=wait + LONGEST_CALL)
        if status == 404:
            raise ValueError(body.decode(errors="replace"))
        told = json.loads(body)
        if status == 200:
            return told["available"], 0
        return 0, (told.get("retry_after_ms") or 1000) / 1000

    def call(self, entry, fields):
        named = {name[7:].decode(): value.decode() for name, value in fields.items()
                 if name.startswith(b"header.")}
        headers = {"content-type": "application/octet-stream", **named, "idempotency-key": entry}
        path = urllib.parse.quote(fields.get(b"path", b"").lstrip(b"/"), safe="/?&=%+,;:@!$'()*~[]")
        return self.open(f"/{self.dependency}/{path}", fields.get(b"body", b""), headers)


class Consumer:
    def __init__(self, options):
        self.options = options
        self.stream = options.stream
        self.gateway = Gateway(options.gateway, options.dependency)
        self.own = threading.local()
        self.is_over = threading.Event()

    @property
    def redis(self):
        """A connection of this thread."""
        if not hasattr(self.own, "redis"):
            self.own.redis = Redis(self.options.redis)
        return self.own.redis

    def run(self):
        with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
            while not self.is_over.is_set():
                try:
                    self.make_group()
                    while not self.is_over.is_set():
                        self.round(pool)
                except (OSError, ValueError, http.client.HTTPException, RedisError) as error:
                    # Redis or the gateway is away: what was fetched comes again.
                    print(f"not reachable: {error}", flush=True)
                    self.own = threading.local()
                    self.is_over.wait(1)

    def make_group(self):
        try:
            self.redis.ask("XGROUP", "CREATE", self.stream, GROUP, "0", "MKSTREAM")
        except RedisError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def round(self, pool):
        """Fetches as many entries as calls could begin, and ends them."""
        available, pause = self.gateway.ready(wait=5)
        if available == 0:
            self.is_over.wait(min(pause, 5))
            return
        entries = self.fetch(min(available, MOST_AT_ONCE))
        ended = [pool.submit(self.end, *entry) for entry in entries]
        # Each comes to its own end before an error of one is told.
        for error in filter(None, [one.exception() for one in ended]):
            raise error

    def fetch(self, most):
        """Returns entries that wait for too long, or new ones."""
        idle = int(self.options.claim_after * 1000)
        name = self.options.name
        claimed = self.redis.ask("XAUTOCLAIM", self.stream, GROUP, name, idle, "0", "COUNT", most)
        entries = [entry for entry in claimed[1] if entry and entry[1]]
        if not entries:
            found = self.redis.ask("XREADGROUP", "GROUP", GROUP, name, "COUNT", most, "BLOCK", 500,
                                   "STREAMS", self.stream, ">")
            entries = found[0][1] if found else []
        return [(entry.decode(), dict(zip(flat[::2], flat[1::2]))) for entry, flat in entries]

    def end(self, entry, fields):
        """Calls, and ends the entry unless it has to wait. One that waits stays with the group, and is
        fetched again after a while."""
        try:
            status, headers, body = self.gateway.call(entry, fields)
        except (ValueError, http.client.InvalidURL) as error:
            self.bury(entry, fields, {"malformed": str(error)})
            return
        if status in WRONG_CREDENTIALS:
            print(f"status {status}: an entry waits for other credentials", flush=True)
            return
        if status < 500 and status != 429:
            self.answer(entry, {"status": status, "body": body.decode(errors="replace")})
            return
        if headers.get_content_type() == "application/problem+json":
            if json.loads(body).get("executed") == "no":
                return  # Refused, or paused: it is not the entry's fault.
        # An outage is not held against an entry: calls could still begin otherwise.
        available, _ = self.gateway.ready(wait=0)
        if status == 429 or available < 2:
            return
        if self.redis.ask("HINCRBY", f"{self.stream}:failures", entry, 1) >= MAX_FAILURES:
            self.bury(entry, fields, {"status": status, "body": body.decode(errors="replace")[:500]})

    def bury(self, entry, fields, problem):
        text = {name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
                for name, value in fields.items()}
        letter = json.dumps({"fields": text, "problem": problem})
        self.redis.ask("HSETNX", f"{self.stream}:dead", entry, letter)
        self.remove(entry)

    def answer(self, entry, answer):
        # First the answer, then the acknowledgement. A second answer changes nothing.
        self.redis.ask("HSETNX", f"{self.stream}:answers", entry, json.dumps(answer))
        self.remove(entry)

    def remove(self, entry):
        self.redis.ask("XACK", self.stream, GROUP, entry)
        self.redis.ask("XDEL", self.stream, entry)
        self.redis.ask("HDEL", f"{self.stream}:failures", entry)


def main():
    parser = argparse.ArgumentParser(description="Turns the entries of a Redis stream into calls.")
    parser.add_argument("--redis", default="127.0.0.1:6379")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--dependency", required=True)
    parser.add_argument("--stream", default="calls")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{time.time_ns()}")
    parser.add_argument("--claim-after", type=float, default=LONGEST_CALL * 2,
                        help="seconds after which an entry that has not ended is fetched again; "
                             "longer than a call takes")
    consumer = Consumer(parser.parse_args())
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: consumer.is_over.set())
    print("consuming", flush=True)
    consumer.run()


if __name__ == "__main__":
    main()
