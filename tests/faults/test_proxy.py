"""The proxy itself: each fault does what it says, to live connections too, and can be healed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.harness.proxy import Fault, Proxy

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture(loop_scope="module")
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that answers each line with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write(b"end")
        except OSError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as opened:
        yield opened
    server.close()


async def connect(proxy: Proxy) -> Pair:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def ask(pair: Pair, data: bytes = b"hello", *, seconds: float = 2) -> bytes:
    """What comes back for `data`; b"" where the connection was cut, b"silence" where nothing came."""
    reader, writer = pair
    try:
        async with asyncio.timeout(seconds):
            writer.write(data)
            await writer.drain()
            return await reader.readexactly(len(data))
    except TimeoutError:
        return b"silence"
    except asyncio.IncompleteReadError as cut:
        return cut.partial
    except OSError:
        return b""


async def test_pass_counts_bytes_and_keeps_half_closed_connections(proxy: Proxy) -> None:
    """Bytes pass in both directions and are counted, and the client's end reaches the server alone."""
    pair = await connect(proxy)
    assert await ask(pair, b"x" * 200_000) == b"x" * 200_000
    assert proxy.passed_bytes == {"up": 200_000, "down": 200_000}
    pair[1].write_eof()
    assert await pair[0].read() == b"end"


async def test_refuse_is_for_new_connections_and_heals_on_the_same_port(proxy: Proxy) -> None:
    """While it refuses nobody can connect, a live connection goes on, and afterwards the port is the same."""
    pair, port = await connect(proxy), proxy.port
    assert await ask(pair) == b"hello"
    proxy.refuse()
    try:
        await connect(proxy)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("it accepted a connection")
    assert await ask(pair) == b"hello"
    await proxy.heal()
    assert proxy.port == port
    assert await ask(await connect(proxy)) == b"hello"


async def test_reset_cuts_live_and_new_connections(proxy: Proxy) -> None:
    """A live connection gets RST, and so does a new one."""
    pair = await connect(proxy)
    assert await ask(pair) == b"hello"
    proxy.set(Fault(mode="reset"))
    try:
        await pair[0].read()
    except ConnectionResetError:
        pass
    else:
        raise AssertionError("it was closed in good order")
    assert await ask(await connect(proxy)) == b""
    await proxy.heal()
    assert await ask(await connect(proxy)) == b"hello"


async def test_blackhole_silences_live_connections_and_gives_back_what_it_held(proxy: Proxy) -> None:
    """Live and new connections stay open and silent; what was sent meanwhile arrives after the heal."""
    live = await connect(proxy)
    assert await ask(live) == b"hello"
    passed = proxy.total_bytes
    proxy.set(Fault(mode="blackhole"))
    assert await ask(live, b"later", seconds=0.2) == b"silence"
    fresh = await connect(proxy)
    assert await ask(fresh, b"fresh", seconds=0.2) == b"silence"
    assert proxy.total_bytes == passed
    await proxy.heal()
    async with asyncio.timeout(2):
        assert await live[0].readexactly(5) == b"later"
        assert await fresh[0].readexactly(5) == b"fresh"


async def test_blackhole_of_one_connection_leaves_the_others(proxy: Proxy) -> None:
    """A fault limited to one link, or to the next connection, touches no other."""
    one, other = await connect(proxy), await connect(proxy)
    assert await ask(one) == b"hello"
    assert await ask(other) == b"hello"
    proxy.set(Fault(mode="blackhole"), only=proxy.links[0])
    assert await ask(one, seconds=0.2) == b"silence"
    assert await ask(other) == b"hello"
    proxy.set_next(Fault(mode="reset"))
    assert await ask(await connect(proxy)) == b""
    assert await ask(await connect(proxy)) == b"hello"


async def test_latency_delays_each_answer(proxy: Proxy) -> None:
    """0.1 s each way makes an answer take 0.2 s at least."""
    pair = await connect(proxy)
    proxy.set(Fault(mode="latency", seconds=0.1, jitter_seconds=0.01))
    began = time.monotonic()
    assert await ask(pair) == b"hello"
    assert 0.2 <= time.monotonic() - began < 1


async def test_cut_after_passes_exactly_so_many_bytes_once(proxy: Proxy) -> None:
    """So many bytes of the answer arrive, then the connection is gone; the next one is whole."""
    pair = await connect(proxy)
    assert await ask(pair, b"before") == b"before"
    proxy.set(Fault(mode="cut_after", n_bytes=7, direction="down"))
    assert await ask(pair, b"0123456789") == b"0123456"
    assert proxy.fired == 1
    assert await ask(await connect(proxy)) == b"hello"


async def test_cut_when_before_keeps_the_pattern_from_the_server(proxy: Proxy) -> None:
    """Whatever is read together with the pattern is not passed, even where the pattern comes in two pieces."""
    pair = await connect(proxy)
    proxy.set(Fault(mode="cut_when", pattern=b"COMMIT", direction="up", when="before"))
    assert await ask(pair, b"COM") == b"COM"
    passed = proxy.passed_bytes["up"]
    assert await ask(pair, b"MIT;") == b""
    assert (proxy.fired, proxy.passed_bytes["up"]) == (1, passed)


async def test_cut_when_after_lets_the_server_act_and_drops_its_answer(proxy: Proxy) -> None:
    """The server gets the pattern and answers it; the client never sees the answer."""
    pair = await connect(proxy)
    proxy.set(Fault(mode="cut_when", pattern=b"COMMIT", direction="up", when="after"))
    assert await ask(pair, b"begin;") == b"begin;"
    down = proxy.passed_bytes["down"]
    assert await ask(pair, b"COMMIT;") == b""
    assert proxy.fired == 1
    assert proxy.passed_bytes["up"] == len(b"begin;COMMIT;")
    assert proxy.passed_bytes["down"] == down


async def test_throttle_bounds_the_rate(proxy: Proxy) -> None:
    """20 kB at 50 kB/s, both ways together, take 0.4 s at least."""
    pair = await connect(proxy)
    proxy.set(Fault(mode="throttle", n_bytes=50_000))
    began = time.monotonic()
    assert await ask(pair, b"x" * 20_000, seconds=5) == b"x" * 20_000
    assert time.monotonic() - began >= 0.35


async def test_flip_changes_one_bit_once(proxy: Proxy) -> None:
    """One bit of the byte at the offset differs in the answer, and only once."""
    pair = await connect(proxy)
    proxy.set(Fault(mode="flip", n_bytes=1, direction="down"))
    assert await ask(pair) == b"hdllo"
    assert proxy.fired == 1
    assert await ask(pair) == b"hello"


async def test_half_close_ends_one_direction_alone(proxy: Proxy) -> None:
    """The server sees the end of the client's bytes, and its answer still arrives."""
    pair = await connect(proxy)
    assert await ask(pair) == b"hello"
    proxy.set(Fault(mode="half_close", direction="up"))
    async with asyncio.timeout(2):
        assert await pair[0].read() == b"end"
    assert proxy.fired == 1
