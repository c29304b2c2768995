#!/usr/bin/env python3
"""Changes what nearfar has cached, from another language.

    examples/foreign_writer.py redis://127.0.0.1:6379 users invalidate 42 43
    examples/foreign_writer.py redis://127.0.0.1:6379 names set Ada Lovelace --ttl 300
    examples/foreign_writer.py redis://127.0.0.1:6379 users clear

Nothing but the standard library is needed, and no node: all nodes of the namespace drop their copies as if one of them had
made the change. What it does is described in docs/wire-format.md, "Writers in other languages". On a cluster, give it any of
the servers. `set` writes a text, as nearfar's default codec writes a Rust `String`.

Change the database first, then call this.
"""

import argparse
import pathlib
import socket
import struct
import sys
import urllib.parse
import zlib

LUA = pathlib.Path(__file__).resolve().parent.parent / "crates/nearfar-redis/src/lua"

# About how many messages the log is to keep: the smallest that any writer gives counts, so as much as the nodes'.
LOG_LEN = 10_000


class Refused(Exception):
    """The server answered with an error."""


class Server:
    """One connection that speaks RESP2, one command after the other."""

    def __init__(self, url):
        self.url = url
        self.socket = socket.create_connection((url.hostname, url.port or 6379), timeout=5)
        self.answers = self.socket.makefile("rb")
        if url.password:
            login = [url.username] if url.username else []
            self.call("AUTH", *map(urllib.parse.unquote, login + [url.password]))

    def at(self, host, port):
        """The same, at another address."""
        login = self.url.netloc.rpartition("@")[0]
        place = f"{host or self.url.hostname}:{port}"
        return Server(self.url._replace(netloc=f"{login}@{place}" if login else place))

    def call(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(request)
        return self.answer()

    def answer(self):
        line = self.answers.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Refused(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return rest


class Namespace:
    """What nodes agree on about a namespace, and the one script that makes changes in it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.script = (LUA / "head.lua").read_bytes() + (LUA / "foreign.lua").read_bytes()
        info = dict(line.split(":", 1) for line in server.call("INFO").decode().splitlines() if ":" in line)
        is_cluster = info.get("cluster_enabled") == "1"
        # From Redis 7 on, a cluster has channels that belong to a slot.
        is_sharded = is_cluster and int(info["redis_version"].split(".")[0]) >= 7
        self.publish = "SPUBLISH" if is_sharded else "PUBLISH"
        settings = self.moved_call(lambda it: it.call("GET", f"{{{name}}}#meta"))
        if settings is None:
            sys.exit(f"no node has ever built a cache of the namespace {name!r} here: nothing to change")
        # format=1 partitions=1 fence_window_ms=60000
        settings = dict(word.split("=") for word in settings.decode().split(" "))
        if settings["format"] != "1":
            sys.exit(f"the settings of {name!r} are of format {settings['format']}: get a newer version of this script")
        self.partitions, self.window = int(settings["partitions"]), int(settings["fence_window_ms"])

    def moved_call(self, call):
        """On a cluster, each server says who has what it has not."""
        server = self.server
        for _ in range(5):
            try:
                return call(server)
            except Refused as refused:
                code, _, rest = str(refused).partition(" ")
                if code != "MOVED":
                    raise
                host, _, port = rest.split(" ")[1].rpartition(":")
                server = self.server.at(host, port)
        raise Refused("the slot is always somewhere else")

    def change(self, partition, keys, keep, envelope=b""):
        tag = f"{{{self.name}.{partition}}}".encode()
        names = [tag + b"#head", tag + b"#log"] + [tag + b":" + key for key in keys]
        arguments = [self.publish, LOG_LEN, keep, envelope]
        return self.moved_call(lambda it: it.call("EVAL", self.script, len(names), *names, *arguments))

    def invalidate(self, keys):
        by_partition = {}
        for key in keys:
            by_partition.setdefault(zlib.crc32(key) % self.partitions, []).append(key)
        for partition, keys in sorted(by_partition.items()):
            print(self.change(partition, keys, self.window))

    def set(self, key, text, ttl):
        millis = round(ttl * 1000)
        envelope = envelope_of(packed(text), millis)
        # A value fences too, so it stays for the window at least, whatever its ttl.
        print(self.change(zlib.crc32(key) % self.partitions, [key], max(millis, self.window), envelope))

    def clear(self):
        for partition in range(self.partitions):
            print(self.change(partition, [], 0))


def packed(text):
    """A text in MessagePack."""
    data = text.encode()
    if len(data) < 32:
        return bytes([0xA0 | len(data)]) + data
    return b"\xdb" + struct.pack(">I", len(data)) + data


def envelope_of(payload, ttl_millis):
    """The envelope of a value; the script fills in bytes 8 to 31, which the checksum leaves out."""
    first = b"NF" + bytes([1, 1, 1, 0]) + struct.pack(">H", 0)
    rest = struct.pack(">QQQIIII", ttl_millis, 0, 0, 0, 0, 0, len(payload))
    checksum = zlib.crc32(first + rest + payload)
    return first + bytes(24) + rest + struct.pack(">I", checksum) + payload


def main():
    parser = argparse.ArgumentParser(description="Changes what nearfar has cached.")
    parser.add_argument("url", help="redis://[user:password@]host[:port]")
    parser.add_argument("namespace")
    doing = parser.add_subparsers(dest="doing", required=True)
    doing.add_parser("invalidate").add_argument("key", nargs="+", help="numbers and texts as they are printed")
    setting = doing.add_parser("set")
    setting.add_argument("key")
    setting.add_argument("text")
    setting.add_argument("--ttl", type=float, default=300, help="seconds; 300 unless given")
    doing.add_parser("clear")
    given = parser.parse_args()

    namespace = Namespace(Server(urllib.parse.urlsplit(given.url)), given.namespace)
    if given.doing == "invalidate":
        namespace.invalidate([key.encode() for key in given.key])
    elif given.doing == "set":
        namespace.set(given.key.encode(), given.text, given.ttl)
    else:
        namespace.clear()


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as error:
        sys.exit(f"the change was not made, or it is not known whether: {error}")
