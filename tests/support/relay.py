"""Relays TCP connections, each way so many seconds late.

  python relay.py SECONDS LISTEN_HOST TARGET_HOST PORT...

For hosts in network namespaces whose kernel has no `tc netem`; the standard
library does for it.
"""

import asyncio
import contextlib
import sys

_CHUNK = 2**16
# Chunks on their way; more than the delay needs.
_LENGTH = 256


async def _pass_on(
  delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
):
  loop = asyncio.get_running_loop()
  chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_LENGTH)

  async def read():
    data = b"?"
    while data:
      try:
        data = await reader.read(_CHUNK)
      except OSError:
        data = b""
      await chunks.put((loop.time() + delay, data))

  reading = asyncio.create_task(read())
  try:
    with contextlib.suppress(OSError):
      while True:
        due, data = await chunks.get()
        await asyncio.sleep(due - loop.time())
        if not data:
          break
        writer.write(data)
        await writer.drain()
  finally:
    reading.cancel()
    writer.close()


async def _main(delay: float, here: str, target: str, ports: list[int]):
  async def relay(port, reader, writer):
    try:
      far_reader, far_writer = await asyncio.open_connection(target, port)
    except OSError:
      writer.close()
      return
    await asyncio.gather(
      _pass_on(delay, reader, far_writer), _pass_on(delay, far_reader, writer)
    )

  def relay_to(port):
    return lambda reader, writer: relay(port, reader, writer)

  for port in ports:
    await asyncio.start_server(relay_to(port), here, port)
  await asyncio.Event().wait()


if __name__ == "__main__":
  asyncio.run(
    _main(float(sys.argv[1]), *sys.argv[2:4], [int(p) for p in sys.argv[4:]])
  )
