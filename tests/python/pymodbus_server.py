"""A Modbus TCP server made of pymodbus: units 1 and 2 with fixed content in all four tables.

Listens on the port that is its argument, or on a free one. Prints the port as its first line and
ends when its standard input ends, so that a test that dies leaves no server behind.

    input registers    0..11  the bedside monitor of the profile vitals-modbus (unit 2 shows other values)
    holding registers  0, 100 heart rate 72 and respiratory rate 14, each a block of its own
    coils              0..9   1 0 1 1 0 0 0 1 0 1
    discrete inputs    0..3   0 1 1 0
"""

import asyncio
import sys

from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.server import ModbusTcpServer

MONITORS = {
    1: [72, 975, 14, 370, 120, 80, 93, 0x42A1, 0x0000, 0, 0, 7],
    2: [0xFFFF, 0, 18, 0x8000, 131, 84, 99, 0x7FC0, 0x0000, 2, 0, 3],
}


def device(registers):
    # pymodbus counts the places of a data block from 1 where the wire counts from 0.
    return ModbusDeviceContext(
        ir=ModbusSequentialDataBlock(1, registers),
        hr=ModbusSparseDataBlock({1: [72, 0], 101: [14, 0]}),
        co=ModbusSequentialDataBlock(1, [1, 0, 1, 1, 0, 0, 0, 1, 0, 1]),
        di=ModbusSequentialDataBlock(1, [0, 1, 1, 0]),
    )


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    units = {unit: device(registers) for unit, registers in MONITORS.items()}
    server = ModbusTcpServer(ModbusServerContext(devices=units, single=False), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(server.transport.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.shutdown()


asyncio.run(main())
