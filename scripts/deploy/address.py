"""Addresses and ports of services."""

import errno
import socket

from scripts.common.errors import UserError

ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104, only compared with


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an address.

    Raises:
        UserError: The port is taken or not allowed, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"deploy.host {host} is no address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    # a port whose last connections still fade away is free
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} on {host} is in use by another program. Stop it, or set deploy.host_port to a free port."
            ) from error
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Check deploy.host and deploy.host_port."
        ) from error
    return listener


def address(host: str, port: int) -> str:
    """URL at which a service that listens there is reached from this machine."""
    host = ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
